// avatar.v1 as a client sees it: frames in, values out. Pure: no socket, no sound, no three.js.
// Written from clients/PROTOCOL.md and tested with clients/golden.json.

export const SUBPROTOCOL = "avatar.v1";
export const HEADER_BYTES = 24;
export const Type = Object.freeze({ AUDIO_IN: 1, FACE: 2, LANDMARKS: 3, VIDEO: 4, AUDIO_OUT: 5, MESH: 6 });
export const Flag = Object.freeze({ SEGMENT_END: 1, KEYFRAME: 2, IDLE: 4, SPEAKING: 8 });
export const AFTER_THE_LAST = -1;

const MAGIC = 0xa5;
const VERSION = 1;

export class WireError extends Error {}

/** Sound as s16 → one binary message. `epoch` is the newest known. */
export function packSound(pcm, seq, epoch, ptsUs = AFTER_THE_LAST, end = false) {
  const bytes = new Uint8Array(pcm.buffer, pcm.byteOffset, pcm.byteLength);
  const message = new Uint8Array(HEADER_BYTES + bytes.length);
  const view = new DataView(message.buffer);
  view.setUint8(0, MAGIC);
  view.setUint8(1, Type.AUDIO_IN);
  view.setUint8(2, end ? Flag.SEGMENT_END : 0);
  view.setUint8(3, VERSION);
  view.setUint32(4, seq >>> 0, true);
  view.setUint32(8, epoch >>> 0, true);
  view.setUint32(12, bytes.length, true);
  view.setBigInt64(16, BigInt(ptsUs), true);
  message.set(bytes, HEADER_BYTES);
  return message;
}

/** ArrayBuffer → { type, flags, seq, epoch, ptsUs, payload }; dates are numbers, exact up to 285 years. */
export function parseFrame(buffer) {
  if (buffer.byteLength < HEADER_BYTES) throw new WireError("less than a header");
  const view = new DataView(buffer);
  const length = view.getUint32(12, true);
  if (view.getUint8(0) !== MAGIC || view.getUint8(3) !== VERSION || length !== buffer.byteLength - HEADER_BYTES) {
    throw new WireError("no frame of avatar.v1");
  }
  return {
    type: view.getUint8(1),
    flags: view.getUint8(2),
    seq: view.getUint32(4, true),
    epoch: view.getUint32(8, true),
    ptsUs: Number(view.getBigInt64(16, true)),
    payload: buffer.slice(HEADER_BYTES),
  };
}

/** A frame of type FACE → { ptsUs, epoch, seq, speaking, values, rotation, position, gaze, visemes }. */
export function parseFace(frame, names, visemeNames = []) {
  const numbers = new Float32Array(frame.payload);
  const n = names.length;
  if (numbers.length !== n + 9 + visemeNames.length) throw new WireError(`a face of ${numbers.length} numbers`);
  return {
    ptsUs: frame.ptsUs,
    epoch: frame.epoch,
    seq: frame.seq,
    speaking: (frame.flags & Flag.SPEAKING) !== 0,
    values: numbers.subarray(0, n),
    rotation: numbers.subarray(n, n + 4),
    position: numbers.subarray(n + 4, n + 7),
    gaze: numbers.subarray(n + 7, n + 9),
    visemes: numbers.subarray(n + 9),
  };
}

/** A frame of type LANDMARKS or MESH → { count, dims, points: Float32Array }. */
export function parsePoints(frame) {
  const view = new DataView(frame.payload);
  return { count: view.getUint16(0, true), dims: view.getUint16(2, true), points: new Float32Array(frame.payload, 4) };
}

/** Whether `epoch` is over, now that `newest` has been seen. Epochs wrap at 2^32. */
export function isOver(epoch, newest) {
  const age = (newest - epoch) >>> 0;
  return age > 0 && age < 0x80000000;
}

function mixInto(out, a, b, t) {
  for (let i = 0; i < a.length; i++) out[i] = a[i] + (b[i] - a[i]) * t;
}

/** Between unit quaternions x y z w, the short way round. */
export function slerp(a, b, t, out = new Float32Array(4)) {
  let cosine = a[0] * b[0] + a[1] * b[1] + a[2] * b[2] + a[3] * b[3];
  const sign = cosine < 0 ? -1 : 1;
  cosine *= sign;
  let before = 1 - t;
  let after = t;
  if (cosine <= 0.9995) {
    const angle = Math.acos(Math.min(1, cosine));
    before = Math.sin((1 - t) * angle) / Math.sin(angle);
    after = Math.sin(t * angle) / Math.sin(angle);
  }
  for (let i = 0; i < 4; i++) out[i] = sign * a[i] * before + b[i] * after;
  const size = Math.hypot(out[0], out[1], out[2], out[3]) || 1;
  for (let i = 0; i < 4; i++) out[i] /= size;
  return out;
}

/**
 * Faces in as they come; the face of any moment out, mixed from the two around it.
 * `at` returns one object again and again: no garbage at 120 Hz.
 */
export class Sampler {
  constructor(keepUs = 1_000_000) {
    this.keepUs = keepUs;
    this.faces = [];
    this.mixed = null;
  }

  push(face) {
    const faces = this.faces;
    if (faces.length && faces[faces.length - 1].epoch !== face.epoch) faces.length = 0;
    while (faces.length && faces[faces.length - 1].ptsUs >= face.ptsUs) faces.pop();
    faces.push(face);
    while (faces[0].ptsUs < face.ptsUs - this.keepUs) faces.shift();
  }

  /** The newest date there is a face for, or null. */
  get newestUs() {
    return this.faces.length ? this.faces[this.faces.length - 1].ptsUs : null;
  }

  at(ptsUs) {
    const faces = this.faces;
    if (!faces.length) return null;
    let i = faces.length - 1;
    while (i > 0 && faces[i - 1].ptsUs >= ptsUs) i--;
    const b = faces[i];
    const a = i > 0 ? faces[i - 1] : b;
    const t = a === b ? 0 : Math.min(1, Math.max(0, (ptsUs - a.ptsUs) / (b.ptsUs - a.ptsUs)));
    return this.#mix(a, b, t);
  }

  #mix(a, b, t) {
    if (!this.mixed || this.mixed.values.length !== b.values.length) {
      this.mixed = {
        values: new Float32Array(b.values.length),
        rotation: new Float32Array(4),
        position: new Float32Array(3),
        gaze: new Float32Array(2),
        visemes: new Float32Array(b.visemes.length),
      };
    }
    const out = this.mixed;
    mixInto(out.values, a.values, b.values, t);
    slerp(a.rotation, b.rotation, t, out.rotation);
    mixInto(out.position, a.position, b.position, t);
    mixInto(out.gaze, a.gaze, b.gaze, t);
    mixInto(out.visemes, a.visemes, b.visemes, t);
    out.ptsUs = a.ptsUs + (b.ptsUs - a.ptsUs) * t;
    out.speaking = b.speaking;
    out.epoch = b.epoch;
    return out;
  }
}
