import type { Object3D } from "three";
import type { Pose } from "./wire.js";

/** Any glTF whose meshes have ARKit morph targets, under any of the usual spellings. */
export declare class MorphDriver {
  constructor(root: Object3D, names: readonly string[], options?: { head?: Object3D | null; strength?: number });
  readonly missing: readonly string[];
  apply(face: Pose | null): void;
}

/** What is used of three-vrm's VRM. */
export interface VrmLike {
  expressionManager?: { getExpression(name: string): unknown; setValue(name: string, weight: number): void } | null;
  humanoid?: { getNormalizedBoneNode(name: "head"): Object3D | null } | null;
  lookAt?: { yaw: number; pitch: number; target?: unknown } | null;
}

/** A VRM 1.0. Call `vrm.update(delta)` after `apply`. */
export declare class VrmDriver {
  constructor(vrm: VrmLike, names: readonly string[]);
  readonly missing: readonly string[];
  apply(face: Pose | null): void;
}
