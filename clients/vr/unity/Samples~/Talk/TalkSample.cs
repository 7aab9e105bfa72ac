// Drop this on an empty object in an empty scene together with a face that has ARKit blendshapes, press Play, and speak.

using Liveface;
using UnityEngine;

public sealed class TalkSample : MonoBehaviour
{
    public GameObject face;
    public string url = "ws://127.0.0.1:8801/v1/stream";

    LivefaceAvatar liveface;

    void Start()
    {
        face.SetActive(false); // so that the component starts with the url below
        liveface = face.GetComponent<LivefaceAvatar>() ?? face.AddComponent<LivefaceAvatar>();
        liveface.url = url;
        face.SetActive(true);
    }

    void OnGUI()
    {
        GUI.Label(new Rect(8, 8, 400, 24), liveface.Disclosure == null ? "Connecting…" : "This face is " + liveface.Disclosure);
        if (GUI.Button(new Rect(8, 36, 120, 28), "Interrupt")) liveface.Interrupt();
    }
}
