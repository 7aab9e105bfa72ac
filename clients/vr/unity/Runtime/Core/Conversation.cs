// The state of one conversation, without a socket: give it every message, it says what came of it. The first byte tells
// text from binary, because some websocket libraries do not.

using System;
using System.Collections.Generic;
using System.Text;

namespace Liveface
{
    public sealed class Conversation
    {
        readonly Sampler sampler = new Sampler();
        uint seq;

        /// <summary>Empty until session.started has come.</summary>
        public string[] Names { get; private set; }
        public int Visemes { get; private set; }
        public string SessionId { get; private set; }
        public uint Epoch { get; private set; }
        public bool Started { get { return SessionId != null; } }
        public Sampler Faces { get { return sampler; } }
        /// <summary>The last fatal error's code and sentence; the close follows.</summary>
        public string Error { get; private set; }
        /// <summary>What users must be told before they talk to it.</summary>
        public string Disclosure { get; private set; }

        /// <summary>Every JSON event, with its type.</summary>
        public event Action<string, Dictionary<string, object>> Said;
        /// <summary>Sound that came back: samples −1…1 and their date in microseconds.</summary>
        public event Action<float[], long> Sound;
        /// <summary>An interrupt: stop what is playing.</summary>
        public event Action Hushed;

        public Conversation() { Names = new string[0]; }

        public void Receive(byte[] message)
        {
            if (message.Length == 0) return;
            if (message[0] == (byte)'{') ReceiveText(Encoding.UTF8.GetString(message));
            else ReceiveFrame(Wire.ParseFrame(message));
        }

        public void ReceiveText(string text)
        {
            var said = Json.ParseObject(text);
            var type = said.Text("type");
            if (type == "session.started")
            {
                var face = said.Inner("face");
                SessionId = said.Text("session_id");
                Names = face.Texts("names");
                Visemes = face.Texts("visemes").Length;
                Epoch = (uint)said.Number("epoch");
                Disclosure = said.Inner("disclosure").Text("label");
            }
            else if (type == "cleared") Follow((uint)said.Number("epoch"));
            else if (type == "error") Error = said.Text("code") + ": " + said.Text("message");
            if (Said != null) Said(type, said);
        }

        /// <summary>A message of sound, or null before the server has answered the hello.</summary>
        public byte[] Speak(short[] pcm, int offset, int count, bool end = false)
        {
            return Started ? Wire.PackSound(pcm, offset, count, seq++, Epoch, Wire.AfterTheLast, end) : null;
        }

        /// <summary>What to send to interrupt. Whatever is on its way is void from here on.</summary>
        public string Interrupt()
        {
            Follow(unchecked(Epoch + 1));
            return "{\"type\":\"interrupt\"}";
        }

        void ReceiveFrame(Frame frame)
        {
            if (Wire.IsOver(frame.Epoch, Epoch)) return;
            Follow(frame.Epoch);
            if (frame.Type == (byte)FrameType.Face) sampler.Push(Wire.ParseFace(frame, Names.Length, Visemes));
            else if (frame.Type == (byte)FrameType.AudioOut && Sound != null) Sound(Wire.ParseSound(frame), frame.PtsUs);
        }

        void Follow(uint epoch)
        {
            if (epoch == Epoch || Wire.IsOver(epoch, Epoch)) return;
            Epoch = epoch;
            if (Hushed != null) Hushed();
        }
    }
}
