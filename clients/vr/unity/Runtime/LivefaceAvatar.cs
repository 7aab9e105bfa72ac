// Put this on a character: its blendshapes, head and eyes follow a voice. Thin: all that can be tested without Unity is
// in Core/. Needs an AudioSource beside it (Spatial Blend 1 for VR), which plays the voice that the server sends back.

using System.Collections.Generic;
using UnityEngine;

namespace Liveface
{
    [RequireComponent(typeof(AudioSource))]
    [AddComponentMenu("Liveface/Liveface Avatar")]
    public sealed class LivefaceAvatar : MonoBehaviour
    {
        const int MicrophoneRate = 16000;

        [Tooltip("ws_url of the server, or wss://… behind a proxy")]
        public string url = "ws://127.0.0.1:8801/v1/stream";
        [Tooltip("Empty: the server's own choice")]
        public string avatar = "";
        [Tooltip("From POST /v1/sessions, where the server asks for one")]
        public string token = "";
        [Tooltip("Meshes with ARKit blendshapes. Empty: all under this object")]
        public SkinnedMeshRenderer[] meshes;
        public Transform head;
        public Transform leftEye;
        public Transform rightEye;
        [Range(0, 2)] public float strength = 1;
        [Range(40, 400)] public int bufferMs = 80;
        public bool useMicrophone = true;

        struct Target { public SkinnedMeshRenderer Mesh; public int Index; }

        Link link;
        Voice voice;
        readonly Face face = new Face();
        List<Target>[] targets;
        Quaternion headRest, leftRest, rightRest;
        Vector3 headPlace;
        AudioClip microphone;
        int heard;

        /// <summary>What your users must be told: that this is a machine.</summary>
        public string Disclosure { get { return link == null ? null : link.Conversation.Disclosure; } }

        async void OnEnable()
        {
            if (meshes == null || meshes.Length == 0) meshes = GetComponentsInChildren<SkinnedMeshRenderer>();
            if (head) { headRest = head.localRotation; headPlace = head.localPosition; }
            if (leftEye) leftRest = leftEye.localRotation;
            if (rightEye) rightRest = rightEye.localRotation;
            var rate = AudioSettings.outputSampleRate == 24000 || AudioSettings.outputSampleRate == 16000 ? AudioSettings.outputSampleRate : 48000;
            if (rate != AudioSettings.outputSampleRate)
                Debug.LogWarning("Liveface: set Project Settings > Audio > System Sample Rate to 48000, or the voice is off pitch");
            voice = new Voice(rate, bufferMs);
            link = new Link();
            link.Conversation.Sound += voice.Push;
            link.Conversation.Hushed += voice.Hush;
            link.Conversation.Said += Said;
            GetComponent<AudioSource>().Play();
            try
            {
                await link.Connect(url, Wire.Hello(avatar, token, MicrophoneRate, "realtime", "arkit52", 25, rate, null));
            }
            catch (System.Exception failed)
            {
                Debug.LogError("Liveface: no connection to " + url + ": " + failed.Message);
            }
            if (useMicrophone) microphone = Microphone.Start(null, true, 1, MicrophoneRate);
        }

        void OnDisable()
        {
            if (microphone) Microphone.End(null);
            microphone = null;
            targets = null;
            if (link != null) link.Dispose();
            link = null;
        }

        /// <summary>Push speech from elsewhere (text-to-speech): samples −1…1 at 16 kHz.</summary>
        public void Say(float[] samples)
        {
            var pcm = new short[samples.Length];
            for (var i = 0; i < pcm.Length; i++) pcm[i] = (short)(Mathf.Clamp(samples[i], -1, 1) * 32767);
            for (var at = 0; at < pcm.Length; at += MicrophoneRate / 5)
                link.Speak(pcm, at, Mathf.Min(MicrophoneRate / 5, pcm.Length - at));
        }

        public void Interrupt() { link.Interrupt(); }

        void Said(string type, Dictionary<string, object> said)
        {
            if (type == "session.started") targets = Find(link.Conversation.Names);
            else if (type == "error") Debug.LogError("Liveface: " + said.Text("code") + ": " + said.Text("message"));
            else if (type == "warning") Debug.LogWarning("Liveface: " + said.Text("code"));
        }

        void Update()
        {
            if (link == null) return;
            if (microphone) Listen();
            link.Poll();
            if (targets == null || !link.Conversation.Faces.At(voice.HeadUs, face)) return;
            for (var i = 0; i < targets.Length; i++)
                foreach (var target in targets[i])
                    target.Mesh.SetBlendShapeWeight(target.Index, 100 * strength * face.Values[i]);
            if (head)
            {
                head.localRotation = headRest * new Quaternion(face.Rotation[0], face.Rotation[1], face.Rotation[2], face.Rotation[3]);
                head.localPosition = headPlace + new Vector3(face.Position[0], face.Position[1], face.Position[2]);
            }
            var gaze = Quaternion.Euler(face.Gaze[1], face.Gaze[0], 0);
            if (leftEye) leftEye.localRotation = leftRest * gaze;
            if (rightEye) rightEye.localRotation = rightRest * gaze;
        }

        void Listen()
        {
            var now = Microphone.GetPosition(null);
            var count = (now - heard + microphone.samples) % microphone.samples;
            if (count < MicrophoneRate / 50) return;
            var samples = new float[count];
            microphone.GetData(samples, heard);
            heard = now;
            Say(samples);
        }

        // The sound thread.
        void OnAudioFilterRead(float[] into, int channels)
        {
            if (voice != null) voice.Read(into, channels);
        }

        List<Target>[] Find(string[] names)
        {
            var found = new List<Target>[names.Length];
            for (var i = 0; i < names.Length; i++)
            {
                found[i] = new List<Target>();
                foreach (var mesh in meshes)
                    for (var k = 0; k < mesh.sharedMesh.blendShapeCount; k++)
                        if (Spelling.Plain(mesh.sharedMesh.GetBlendShapeName(k)) == Spelling.Plain(names[i]))
                            found[i].Add(new Target { Mesh = mesh, Index = k });
            }
            return found;
        }
    }
}
