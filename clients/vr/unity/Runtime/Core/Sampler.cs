// Faces in as they come; the face of any moment out: sample it at the play-out head of the sound.

using System;
using System.Collections.Generic;

namespace Liveface
{
    public sealed class Sampler
    {
        readonly long keepUs;
        readonly List<Face> faces = new List<Face>();

        public Sampler(long keepUs = 1000000) { this.keepUs = keepUs; }

        public int Count { get { return faces.Count; } }

        public void Push(Face face)
        {
            if (faces.Count > 0 && faces[faces.Count - 1].Epoch != face.Epoch) faces.Clear();
            while (faces.Count > 0 && faces[faces.Count - 1].PtsUs >= face.PtsUs) faces.RemoveAt(faces.Count - 1);
            faces.Add(face);
            while (faces[0].PtsUs < face.PtsUs - keepUs) faces.RemoveAt(0);
        }

        /// <summary>Mixes the two faces around a date into <paramref name="into"/>; false when there is none yet.</summary>
        public bool At(double ptsUs, Face into)
        {
            if (faces.Count == 0) return false;
            var i = faces.Count - 1;
            while (i > 0 && faces[i - 1].PtsUs >= ptsUs) i--;
            var b = faces[i];
            var a = i > 0 ? faces[i - 1] : b;
            var t = a == b ? 0f : (float)Math.Min(1, Math.Max(0, (ptsUs - a.PtsUs) / (b.PtsUs - a.PtsUs)));
            if (into.Values == null || into.Values.Length != b.Values.Length) into.Values = new float[b.Values.Length];
            if (into.Visemes == null || into.Visemes.Length != b.Visemes.Length) into.Visemes = new float[b.Visemes.Length];
            Mix(a.Values, b.Values, t, into.Values);
            Mix(a.Visemes, b.Visemes, t, into.Visemes);
            Mix(a.Position, b.Position, t, into.Position);
            Mix(a.Gaze, b.Gaze, t, into.Gaze);
            Slerp(a.Rotation, b.Rotation, t, into.Rotation);
            into.PtsUs = a.PtsUs + (long)((b.PtsUs - a.PtsUs) * t);
            into.Epoch = b.Epoch;
            into.Seq = b.Seq;
            into.Speaking = b.Speaking;
            return true;
        }

        /// <summary>Between unit quaternions x y z w, the short way round.</summary>
        public static void Slerp(float[] a, float[] b, float t, float[] into)
        {
            double cosine = 0;
            for (var i = 0; i < 4; i++) cosine += (double)a[i] * b[i];
            var sign = cosine < 0 ? -1.0 : 1.0;
            cosine *= sign;
            double before = 1 - t, after = t;
            if (cosine <= 0.9995)
            {
                var angle = Math.Acos(Math.Min(1, cosine));
                before = Math.Sin((1 - t) * angle) / Math.Sin(angle);
                after = Math.Sin(t * angle) / Math.Sin(angle);
            }
            var mixed = new double[4];
            double size = 0;
            for (var i = 0; i < 4; i++)
            {
                mixed[i] = sign * a[i] * before + b[i] * after;
                size += mixed[i] * mixed[i];
            }
            size = size > 0 ? Math.Sqrt(size) : 1;
            for (var i = 0; i < 4; i++) into[i] = (float)(mixed[i] / size);
        }

        static void Mix(float[] a, float[] b, float t, float[] into)
        {
            for (var i = 0; i < a.Length; i++) into[i] = a[i] + (b[i] - a[i]) * t;
        }
    }
}
