import type { Group } from "three";

/** A head of formulas with all 52 ARKit shapes. `userData.head` is the part that turns. Pass three.js itself. */
export declare function makeHead(three: typeof import("three")): Group;
