/**
 * Mouth to glass, measured. `liveface serve --probe` writes into each picture the number of its own 40 ms of sound, and
 * whether that sound is loud (engine/probe.py). This page hears its microphone and its loudspeaker, sample by sample,
 * with times. The one shift of the numbers that makes all loud pictures fall on loud moments of the microphone says
 * when the sound of each picture was spoken; the same with the loudspeaker says when it was heard. No clock is shared
 * with the server, and nothing is estimated from statistics. Needs Chromium (MediaStreamTrackProcessor).
 */

const CHUNK_MS = 40;
const BLOCK = 8;
const ROWS = 3;
const COLUMNS = 8;
const NUMBERS = 1 << 16;
const LOUD = 1000 / 32768; // engine/probe.py: LOUD
const WINDOW_MS = 14_000;
const RING = 1 << 15; // milliseconds of sound kept

/**
 * The mark of a picture, from the RGBA pixels of its upper left 64 x 24; null where there is none to be trusted.
 * The mirror of `engine.probe.read`. Pure.
 * @param {Uint8ClampedArray} pixels
 * @returns {{ number: number, loud: boolean }|null}
 */
export function readMark(pixels) {
  let value = 0;
  for (let bit = 0; bit < ROWS * COLUMNS; bit += 1) {
    const top = Math.floor(bit / COLUMNS) * BLOCK;
    const left = (bit % COLUMNS) * BLOCK;
    let sum = 0;
    // The rim of a block may have run into its neighbour.
    for (let y = top + 2; y < top + BLOCK - 2; y += 1)
      for (let x = left + 2; x < left + BLOCK - 2; x += 1) sum += pixels[4 * (y * COLUMNS * BLOCK + x) + 1];
    const mean = sum / (BLOCK - 4) ** 2;
    if (Math.abs(mean - 127.5) < 46) return null;
    if (mean > 127.5) value |= 1 << bit;
  }
  const said = value & 0xfffff;
  const factors = [1, 3, 5, 7, 11];
  const check = factors.reduce((total, factor, i) => total + ((said >> (4 * i)) & 15) * factor, 9) & 15;
  if (check !== (value >>> 20) || said >> 17) return null;
  return { number: said & 0xffff, loud: Boolean((said >> 16) & 1) };
}

/** @param {number[]} values ascending @param {number} share */
export const quantile = (values, share) => values[Math.min(values.length - 1, Math.floor(share * values.length))];

/** The energy of a track, millisecond by millisecond, on this page's clock. */
class Hearing {
  /** @param {MediaStreamTrack} track a clone that this object may stop */
  constructor(track) {
    this.track = track;
    this.sums = new Float64Array(RING); // running sum of the mean squares, by millisecond
    this.head = 0; // the millisecond after the last one written
    this.first = 0;
    this.offset = Infinity; // from the track's timestamps to performance.now()
    // @ts-ignore - Chromium only, and not in the DOM library
    this.reader = new MediaStreamTrackProcessor({ track }).readable.getReader();
    this.running = this.listen();
  }

  async listen() {
    const samples = new Float32Array(4096);
    for (;;) {
      const { value: sound, done } = await this.reader.read();
      if (done) return;
      const now = performance.now();
      const ends = sound.timestamp / 1000 + (1000 * sound.numberOfFrames) / sound.sampleRate;
      // The quickest delivery ever seen draws the line between the clocks; the leak follows their drift.
      this.offset = Math.min(now - ends, this.offset + 0.0005);
      sound.copyTo(samples, { planeIndex: 0, frameCount: Math.min(sound.numberOfFrames, samples.length), format: "f32-planar" });
      this.write(samples.subarray(0, sound.numberOfFrames), sound.timestamp / 1000 + this.offset, sound.sampleRate);
      sound.close();
    }
  }

  /** @param {Float32Array} samples @param {number} starts milliseconds @param {number} rate */
  write(samples, starts, rate) {
    const per = rate / 1000;
    let at = Math.round(starts);
    if (!this.first || at - this.head > RING / 2) this.first = this.head = at;
    while (this.head < at) this.append(0); // a hole is silence
    if (this.head - at < 4) at = this.head; // timestamps tremble by a millisecond or two; sound does not
    for (let i = 0; i + per <= samples.length + 0.5; i += per) {
      let energy = 0;
      const from = Math.round(i);
      const to = Math.min(samples.length, Math.round(i + per));
      for (let k = from; k < to; k += 1) energy += samples[k] * samples[k];
      if (at >= this.head) this.append(energy / (to - from));
      at += 1;
    }
  }

  /** @param {number} energy */
  append(energy) {
    const before = this.head === this.first ? 0 : this.sums[(this.head - 1) & (RING - 1)];
    this.sums[this.head & (RING - 1)] = before + energy;
    this.head += 1;
  }

  /** The mean square of 40 ms; null when they are not kept. @param {number} from milliseconds */
  energy(from) {
    const a = Math.round(from);
    const b = a + CHUNK_MS;
    if (a <= this.first || b >= this.head || this.head - a >= RING) return null;
    return (this.sums[(b - 1) & (RING - 1)] - this.sums[(a - 1) & (RING - 1)]) / CHUNK_MS;
  }

  stop() {
    this.reader.cancel().catch(() => undefined);
    this.track.stop();
  }
}

/**
 * The time of moment 0 on a hearing: the middle of the shifts at which the most marks are right, and how sure that is.
 * @param {{ number: number, loud: boolean, shown: number }[]} marks @param {Hearing} hearing
 * @param {number} least @param {number} most bounds of the latency that is looked for, in milliseconds
 * @param {number} [enough] the share of marks that must be right
 * @returns {{ zero: number, sureMs: number, right: number }|null} null where the marks do not say
 */
export function fit(marks, hearing, least, most, enough = 0.93) {
  let turns = 0;
  for (let i = 1; i < marks.length; i += 1) if (marks[i].loud !== marks[i - 1].loud) turns += 1;
  if (turns < 6) return null;
  const { number, shown } = marks[marks.length - 1];
  const limit = LOUD * LOUD;
  let best = 0;
  /** @type {Map<number, number>} the share of marks that are right, by latency */
  const scores = new Map();
  const score = (/** @type {number} */ latency) => {
    const zero = shown - latency - CHUNK_MS * number;
    let right = 0;
    let counted = 0;
    for (const mark of marks) {
      const energy = hearing.energy(zero + CHUNK_MS * mark.number);
      if (energy === null) continue;
      counted += 1;
      if (energy >= limit === mark.loud) right += 1;
    }
    if (counted < marks.length * 0.6) return;
    scores.set(latency, right / counted);
    best = Math.max(best, right / counted);
  };
  // Neighbours differ little: every sixth first, then all around the good ones. A page has other things to do.
  for (let latency = least; latency <= most; latency += 6) score(latency);
  for (const [latency, share] of [...scores])
    if (share > best - 0.04) for (let near = latency - 5; near <= latency + 5; near += 1) if (!scores.has(near)) score(near);
  const plateau = [...scores].filter(([, share]) => share >= best - 1e-9).map(([latency]) => shown - latency - CHUNK_MS * number);
  if (best < enough || !plateau.length) return null;
  const low = Math.min(...plateau);
  const high = Math.max(...plateau);
  return high - low > 25 ? null : { zero: (low + high) / 2, sureMs: (high - low) / 2, right: best };
}

export class Meter {
  /**
   * @param {{ video: HTMLVideoElement, microphone: MediaStream, remote: MediaStream, context?: AudioContext }} sources
   *   `context`, a running one, knows how long sound takes from this page to the loudspeaker
   */
  constructor({ video, microphone, remote, context }) {
    this.context = context;
    this.video = video;
    this.microphone = microphone;
    this.remote = remote;
    this.canvas = new OffscreenCanvas(COLUMNS * BLOCK, ROWS * BLOCK);
    this.pen = /** @type {OffscreenCanvasRenderingContext2D} */ (this.canvas.getContext("2d", { willReadFrequently: true }));
    /** Pictures, the newest last; `shown` is when the browser expected it on the glass, `drawn` when it was handed
     * over, `skipped` how many moments before it had no picture of their own.
     * @type {{ number: number, loud: boolean, shown: number, drawn: number, skipped: number }[]} */
    this.marks = [];
    /** Every picture since the start, measured. @type {{ number: number, latency: number, drawn: number, avOffset: number|null, shown: number, skipped: number }[]} */
    this.measured = [];
    this.unread = 0;
    this.fits = { mouth: /** @type {any} */ (null), ear: /** @type {any} */ (null) };
    this.running = false;
    /** @type {ReturnType<typeof setInterval>|undefined} */
    this.timer = undefined;
    /** @type {Hearing[]} */
    this.hearings = [];
  }

  async start() {
    if (!("MediaStreamTrackProcessor" in globalThis) || !this.video.requestVideoFrameCallback) return false;
    this.mouth = new Hearing(this.microphone.getAudioTracks()[0].clone());
    this.mouth.track.enabled = true;
    this.hearings.push(this.mouth);
    const loudspeaker = this.remote.getAudioTracks()[0];
    if (loudspeaker) this.hearings.push((this.ear = new Hearing(loudspeaker.clone())));
    this.running = true;
    this.video.requestVideoFrameCallback((now, frame) => this.see(now, frame));
    this.timer = setInterval(() => this.settle(), 2000);
    return true;
  }

  stop() {
    this.running = false;
    clearInterval(this.timer);
    for (const hearing of this.hearings) hearing.stop();
  }

  /** @param {number} now @param {VideoFrameCallbackMetadata} frame */
  see(now, frame) {
    if (!this.running) return;
    this.video.requestVideoFrameCallback((later, next) => this.see(later, next));
    this.pen.drawImage(this.video, 0, 0, this.canvas.width, this.canvas.height, 0, 0, this.canvas.width, this.canvas.height);
    const mark = readMark(this.pen.getImageData(0, 0, this.canvas.width, this.canvas.height).data);
    if (!mark) {
      this.unread += 1;
      return;
    }
    const last = this.marks.at(-1);
    // Numbers go round; ours do not.
    const number = last ? last.number + ((((mark.number - last.number) % NUMBERS) + NUMBERS + NUMBERS / 2) % NUMBERS) - NUMBERS / 2 : mark.number;
    if (last && number <= last.number) return; // shown already
    const skipped = last ? Math.min(25, number - last.number - 1) : 0;
    this.marks.push({ number, loud: mark.loud, shown: Math.max(now, frame.expectedDisplayTime), drawn: now, skipped });
  }

  /** Every two seconds: where the marks fall on the two hearings, and what that says of the pictures since the last time. */
  settle() {
    const now = performance.now();
    while (this.marks.length && now - this.marks[0].shown > WINDOW_MS) this.marks.shift();
    if (this.marks.length < 100 || !this.mouth) return;
    // Where the server has left sound out or put silence in, only the pictures since then are of one piece.
    const mouth = fit(this.marks, this.mouth, 10, 1500) ?? fit(this.marks.slice(-150), this.mouth, 10, 1500);
    // The browser stretches and squeezes sound as its buffer sees fit: only the last seconds are of one piece.
    const ear = this.ear ? fit(this.marks.slice(-130), this.ear, -500, 500, 0.9) : null;
    this.fits = { mouth, ear };
    if (!mouth) return;
    const out = 1000 * (this.context?.outputLatency ?? 0);
    const done = this.measured.at(-1)?.number ?? this.marks[0].number;
    for (const mark of this.marks) {
      if (mark.number <= done) continue;
      // What was skipped is seen in the picture after it.
      const spoken = mouth.zero + CHUNK_MS * mark.number;
      this.measured.push({
        number: mark.number, latency: mark.shown - spoken, drawn: mark.drawn - spoken, shown: mark.shown, skipped: mark.skipped,
        avOffset: ear ? mark.shown - (ear.zero + CHUNK_MS * mark.number + out) : null,
      });
    }
    if (this.measured.length > 40_000) this.measured.splice(0, 10_000);
  }

  /** The last minute, or all of it: what a sound at a random instant waits until its picture is on the glass. */
  summary(all = false) {
    const rows = all ? this.measured : this.measured.slice(-1500);
    if (!rows.length) return null;
    // A picture shows 40 ms of sound: what was said at its start waited longest. Skipped moments waited for the next.
    const spread = (/** @type {"latency"|"drawn"} */ which) => rows.flatMap((row) => Array.from(
      { length: 8 * (1 + row.skipped) }, (_, k) => row[which] + CHUNK_MS * row.skipped - (k + 0.5) * (CHUNK_MS / 8),
    )).sort((a, b) => a - b);
    const glass = spread("latency");
    const drawn = spread("drawn");
    const offsets = rows.flatMap((row) => (row.avOffset === null ? [] : [row.avOffset])).sort((a, b) => a - b);
    const gaps = rows.slice(1).map((row, i) => row.shown - rows[i].shown).filter((gap) => gap < 5000).sort((a, b) => a - b);
    const five = (/** @type {number[]} */ sorted) => sorted.length ? {
      p5: quantile(sorted, 0.05), p50: quantile(sorted, 0.5), p95: quantile(sorted, 0.95), p99: quantile(sorted, 0.99), max: sorted[sorted.length - 1],
    } : null;
    return {
      count: rows.length, ...(/** @type {{ p50: number }} */ (five(glass))), glass: five(glass), drawn: five(drawn), av: five(offsets),
      interval: five(gaps), avOffset: offsets.length ? quantile(offsets, 0.5) : null, unread: this.unread,
      sureMs: this.fits.mouth?.sureMs ?? null, right: this.fits.mouth?.right ?? null,
    };
  }
}
