import type { Points, Pose } from "./wire.js";
export { Flag, Sampler, slerp } from "./wire.js";
export type { Face, Points, Pose } from "./wire.js";

export interface Options {
  avatar?: string;
  /** From POST /v1/sessions, where the server asks for one. */
  token?: string;
  /** "realtime" for a microphone, "burst" for speech that is made faster than it is said. */
  pacing?: "realtime" | "burst";
  face?: {
    schema?: "arkit52" | "vrm1" | "oculus15";
    rate?: 25 | 50 | 60;
    coords?: "gltf" | "unity" | "unreal";
    visemes?: boolean;
  };
  landmarks?: boolean;
  mesh?: boolean;
  /** A session to take over, if it is still open. */
  resume?: string | null;
  /** Where the voice is played; 48 kHz is best. Made when not given. */
  audioContext?: AudioContext;
  /** Milliseconds of sound, and so of faces, held back against the network's unrest. Default 80. */
  bufferMs?: number;
  name?: string;
}

export declare class AvatarError extends Error {
  constructor(code: number, reason: string, message?: string, retryAfterMs?: number);
  /** A close code of PROTOCOL.md. */
  code: number;
  reason: string;
  retryAfterMs?: number;
}

export interface AvatarEvents {
  event: CustomEvent<{ type: string; [field: string]: unknown }>;
  points: CustomEvent<Points & { ptsUs: number; type: number }>;
  closed: CustomEvent<AvatarError>;
}

export declare class Avatar extends EventTarget {
  readonly started: Record<string, unknown>;
  readonly sessionId: string;
  readonly names: readonly string[];
  readonly visemeNames: readonly string[];
  readonly disclosure?: { ai_generated: boolean; label: string; digital_source_type: string };
  readonly audioContext: AudioContext;
  /** The voice: connect it to a PannerNode at the avatar's mouth, or to the destination. */
  readonly output: AudioNode;
  readonly open: boolean;
  /** Faces received so far. */
  readonly faces: number;
  readonly headUs: number | null;
  readonly bufferedMs: number;
  /** The face of what is heard now, or null before the first. The object is used again by the next call. */
  sample(): Pose | null;
  say(samples: Float32Array, rate: number, end?: boolean): Promise<void>;
  microphone(constraints?: MediaTrackConstraints): Promise<{ stop(): Promise<void> }>;
  interrupt(): void;
  update(changes: { face?: Pick<NonNullable<Options["face"]>, "rate" | "coords">; landmarks?: boolean; mesh?: boolean }): void;
  close(): Promise<void>;
  addEventListener<K extends keyof AvatarEvents>(type: K, listener: (event: AvatarEvents[K]) => void, options?: boolean | AddEventListenerOptions): void;
  addEventListener(type: string, listener: EventListenerOrEventListenerObject, options?: boolean | AddEventListenerOptions): void;
}

export declare function connect(url: string, options?: Options): Promise<Avatar>;
