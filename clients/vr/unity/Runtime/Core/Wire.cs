// avatar.v1 as a client sees it: frames in, values out. No UnityEngine, no socket: plain C# 7, .NET Standard 2.0.
// Written from clients/PROTOCOL.md and tested with clients/golden.json.

using System;
using System.Collections.Generic;
using System.Text;

namespace Liveface
{
    public enum FrameType : byte { AudioIn = 1, Face = 2, Landmarks = 3, Video = 4, AudioOut = 5, Mesh = 6 }

    [Flags]
    public enum FrameFlags : byte { None = 0, SegmentEnd = 1, KeyFrame = 2, Idle = 4, Speaking = 8 }

    public sealed class WireException : Exception
    {
        public WireException(string message) : base(message) { }
    }

    /// <summary>One binary message. Unknown types are to be ignored, so Type is a plain number.</summary>
    public struct Frame
    {
        public byte Type;
        public FrameFlags Flags;
        public uint Seq;
        public uint Epoch;
        /// <summary>Microseconds of the session's audio timeline.</summary>
        public long PtsUs;
        public ArraySegment<byte> Payload;
    }

    /// <summary>One face, in the coordinates that the hello asked for (Unity: left-handed, +Y up, +Z forward, metres).</summary>
    public sealed class Face
    {
        public long PtsUs;
        public uint Epoch;
        public uint Seq;
        public bool Speaking;
        public bool SegmentEnd;
        /// <summary>Weights 0…1 in the order of the announced names.</summary>
        public float[] Values;
        /// <summary>Quaternion x, y, z, w.</summary>
        public readonly float[] Rotation = new float[4];
        public readonly float[] Position = new float[3];
        /// <summary>Yaw and pitch in degrees.</summary>
        public readonly float[] Gaze = new float[2];
        public float[] Visemes;
    }

    public static class Wire
    {
        public const string Subprotocol = "avatar.v1";
        public const int HeaderBytes = 24;
        public const byte Magic = 0xA5;
        public const byte Version = 1;
        /// <summary>As the date of sound: right after what was sent before.</summary>
        public const long AfterTheLast = -1;

        /// <summary>Interleaved s16 as declared in the hello → one message.</summary>
        public static byte[] PackSound(short[] pcm, int offset, int count, uint seq, uint epoch, long ptsUs = AfterTheLast, bool end = false)
        {
            var message = new byte[HeaderBytes + 2 * count];
            message[0] = Magic;
            message[1] = (byte)FrameType.AudioIn;
            message[2] = (byte)(end ? FrameFlags.SegmentEnd : FrameFlags.None);
            message[3] = Version;
            PutU32(message, 4, seq);
            PutU32(message, 8, epoch);
            PutU32(message, 12, (uint)(2 * count));
            PutU32(message, 16, (uint)(ptsUs & 0xFFFFFFFF));
            PutU32(message, 20, (uint)(ptsUs >> 32 & 0xFFFFFFFF));
            for (var i = 0; i < count; i++)
            {
                message[HeaderBytes + 2 * i] = (byte)pcm[offset + i];
                message[HeaderBytes + 2 * i + 1] = (byte)(pcm[offset + i] >> 8);
            }
            return message;
        }

        public static Frame ParseFrame(byte[] message)
        {
            if (message.Length < HeaderBytes) throw new WireException("less than a header");
            var length = U32(message, 12);
            if (message[0] != Magic || message[3] != Version || length != (uint)(message.Length - HeaderBytes))
                throw new WireException("no frame of avatar.v1");
            return new Frame
            {
                Type = message[1],
                Flags = (FrameFlags)message[2],
                Seq = U32(message, 4),
                Epoch = U32(message, 8),
                PtsUs = (long)((ulong)U32(message, 16) | (ulong)U32(message, 20) << 32),
                Payload = new ArraySegment<byte>(message, HeaderBytes, message.Length - HeaderBytes),
            };
        }

        public static Face ParseFace(Frame frame, int names, int visemes)
        {
            var floats = names + 9 + visemes;
            if (frame.Payload.Count != 4 * floats) throw new WireException("a face of " + frame.Payload.Count / 4 + " numbers");
            var face = new Face
            {
                PtsUs = frame.PtsUs,
                Epoch = frame.Epoch,
                Seq = frame.Seq,
                Speaking = (frame.Flags & FrameFlags.Speaking) != 0,
                SegmentEnd = (frame.Flags & FrameFlags.SegmentEnd) != 0,
                Values = new float[names],
                Visemes = new float[visemes],
            };
            var at = frame.Payload.Offset;
            foreach (var part in new[] { face.Values, face.Rotation, face.Position, face.Gaze, face.Visemes })
            {
                for (var i = 0; i < part.Length; i++, at += 4) part[i] = F32(frame.Payload.Array, at);
            }
            return face;
        }

        /// <summary>Landmarks or mesh → x y z of each point, normalised to the picture.</summary>
        public static float[][] ParsePoints(Frame frame)
        {
            var bytes = frame.Payload.Array;
            var at = frame.Payload.Offset;
            if (frame.Payload.Count < 4) throw new WireException("points without a count");
            var n = bytes[at] | bytes[at + 1] << 8;
            var dims = bytes[at + 2] | bytes[at + 3] << 8;
            if (frame.Payload.Count != 4 + 4 * n * dims) throw new WireException("another number of points than announced");
            var points = new float[n][];
            at += 4;
            for (var i = 0; i < n; i++)
            {
                points[i] = new float[dims];
                for (var k = 0; k < dims; k++, at += 4) points[i][k] = F32(bytes, at);
            }
            return points;
        }

        /// <summary>Sound that came back → samples −1…1.</summary>
        public static float[] ParseSound(Frame frame)
        {
            var samples = new float[frame.Payload.Count / 2];
            for (var i = 0; i < samples.Length; i++)
            {
                var at = frame.Payload.Offset + 2 * i;
                samples[i] = (short)(frame.Payload.Array[at] | frame.Payload.Array[at + 1] << 8) / 32768f;
            }
            return samples;
        }

        /// <summary>Whether an epoch is over, now that <paramref name="newest"/> has been seen. They wrap at 2^32.</summary>
        public static bool IsOver(uint epoch, uint newest)
        {
            var age = unchecked(newest - epoch);
            return age > 0 && age < 0x80000000u;
        }

        /// <summary>The first message of a conversation.</summary>
        public static string Hello(string avatar, string token, int sampleRate, string pacing, string schema, int rate, int audioOut, string resume)
        {
            var text = new StringBuilder("{\"type\":\"session.start\",\"protocol\":\"1.0\",\"client\":{\"name\":\"liveface-unity\",\"version\":\"1.0\",\"engine\":\"unity\"}");
            if (!string.IsNullOrEmpty(token)) text.Append(",\"auth\":{\"token\":").Append(Json.Quote(token)).Append('}');
            if (!string.IsNullOrEmpty(avatar)) text.Append(",\"avatar_id\":").Append(Json.Quote(avatar));
            text.Append(",\"audio\":{\"format\":\"pcm_s16le\",\"sample_rate\":").Append(sampleRate).Append(",\"channels\":1}");
            text.Append(",\"pacing\":").Append(Json.Quote(pacing));
            text.Append(",\"face\":{\"schema\":").Append(Json.Quote(schema)).Append(",\"rate\":").Append(rate).Append(",\"coords\":\"unity\"}");
            if (audioOut > 0) text.Append(",\"audio_out\":{\"sample_rate\":").Append(audioOut).Append('}');
            if (!string.IsNullOrEmpty(resume)) text.Append(",\"resume\":").Append(Json.Quote(resume));
            return text.Append('}').ToString();
        }

        static void PutU32(byte[] bytes, int at, uint value)
        {
            for (var i = 0; i < 4; i++) bytes[at + i] = (byte)(value >> 8 * i);
        }

        static uint U32(byte[] bytes, int at)
        {
            return (uint)(bytes[at] | bytes[at + 1] << 8 | bytes[at + 2] << 16 | bytes[at + 3] << 24);
        }

        static float F32(byte[] bytes, int at)
        {
            if (BitConverter.IsLittleEndian) return BitConverter.ToSingle(bytes, at);
            return BitConverter.ToSingle(new[] { bytes[at + 3], bytes[at + 2], bytes[at + 1], bytes[at] }, 0);
        }
    }
}
