// Dated sound in, samples for the sound card out: a ring that knows which date is being heard. Thread-safe: the socket
// fills it, the audio thread empties it.

using System;

namespace Liveface
{
    public sealed class Voice
    {
        readonly float[] ring;
        readonly int rate;
        readonly int lead;
        readonly object door = new object();
        long read, written;
        long endUs;
        bool playing;

        /// <param name="rate">Of the sound, in hertz.</param>
        /// <param name="bufferMs">Held back against the network's unrest, before the first sound and after it ran dry.</param>
        public Voice(int rate, int bufferMs = 80)
        {
            this.rate = rate;
            lead = rate * bufferMs / 1000;
            ring = new float[2 * rate];
        }

        /// <summary>How often it ran dry.</summary>
        public int Underruns { get; private set; }

        /// <summary>Microseconds of the session's timeline that have been handed to the sound card; −1 before the first.</summary>
        public long HeadUs
        {
            get { lock (door) return written == 0 ? -1 : endUs - (written - read) * 1000000 / rate; }
        }

        public void Push(float[] samples, long ptsUs)
        {
            lock (door)
            {
                // More than the ring holds: the sound card has stood still. The oldest goes.
                if (written - read + samples.Length > ring.Length) read = written + samples.Length - ring.Length;
                foreach (var sample in samples) ring[written++ % ring.Length] = sample;
                endUs = ptsUs + (long)samples.Length * 1000000 / rate;
            }
        }

        /// <summary>Fills <paramref name="into"/> (interleaved, all channels alike); silence where there is no sound.</summary>
        public void Read(float[] into, int channels)
        {
            lock (door)
            {
                if (!playing && written - read >= lead) playing = true;
                for (var i = 0; i + channels <= into.Length; i += channels)
                {
                    var sample = 0f;
                    if (playing && read < written) sample = ring[read++ % ring.Length];
                    else if (playing) { playing = false; Underruns++; }
                    for (var c = 0; c < channels; c++) into[i + c] = sample;
                }
            }
        }

        /// <summary>An interrupt: what has not been heard never will be.</summary>
        public void Hush()
        {
            lock (door) { read = written; playing = false; }
        }
    }
}
