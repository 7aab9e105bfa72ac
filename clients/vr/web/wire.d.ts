export declare const SUBPROTOCOL: "avatar.v1";
export declare const HEADER_BYTES: 24;
export declare const Type: Readonly<{ AUDIO_IN: 1; FACE: 2; LANDMARKS: 3; VIDEO: 4; AUDIO_OUT: 5; MESH: 6 }>;
export declare const Flag: Readonly<{ SEGMENT_END: 1; KEYFRAME: 2; IDLE: 4; SPEAKING: 8 }>;
export declare const AFTER_THE_LAST: -1;

export declare class WireError extends Error {}

export interface Frame {
  type: number;
  flags: number;
  seq: number;
  epoch: number;
  /** Microseconds of the session's audio timeline. */
  ptsUs: number;
  payload: ArrayBuffer;
}

export interface Pose {
  ptsUs: number;
  epoch: number;
  speaking: boolean;
  /** Weights 0…1, in the order of the names that the server announced. */
  values: Float32Array;
  /** Quaternion x, y, z, w. */
  rotation: Float32Array;
  /** Metres. */
  position: Float32Array;
  /** Yaw and pitch in degrees. */
  gaze: Float32Array;
  visemes: Float32Array;
}

export interface Face extends Pose {
  seq: number;
}

export interface Points {
  count: number;
  dims: number;
  points: Float32Array;
}

export declare function packSound(pcm: Int16Array, seq: number, epoch: number, ptsUs?: number, end?: boolean): Uint8Array;
export declare function parseFrame(buffer: ArrayBuffer): Frame;
export declare function parseFace(frame: Frame, names: readonly string[], visemeNames?: readonly string[]): Face;
export declare function parsePoints(frame: Frame): Points;
export declare function isOver(epoch: number, newest: number): boolean;
export declare function slerp(a: ArrayLike<number>, b: ArrayLike<number>, t: number, out?: Float32Array): Float32Array;

export declare class Sampler {
  constructor(keepUs?: number);
  push(face: Face): void;
  readonly newestUs: number | null;
  /** The face at a date, or null before the first one. The same object every time. */
  at(ptsUs: number): Pose | null;
}
