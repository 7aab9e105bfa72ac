// Faces onto avatars. Nothing is imported: objects of three.js and three-vrm are taken as they are.

/**
 * Any glTF whose meshes have ARKit morph targets, under any of the usual spellings (jawOpen, JawOpen, eyeBlink_L).
 * `head`, an Object3D, is turned and moved if given; put it where the neck ends.
 */
export class MorphDriver {
  constructor(root, names, { head = null, strength = 1 } = {}) {
    this.head = head;
    this.strength = strength;
    this.rest = head ? { position: head.position.clone(), quaternion: head.quaternion.clone() } : null;
    this.turn = head ? head.quaternion.clone() : null;
    this.targets = names.map(() => []);
    const places = new Map(names.map((name, i) => [plain(name), i]));
    root.traverse((mesh) => {
      for (const [name, index] of Object.entries(mesh.morphTargetDictionary ?? {})) {
        const place = places.get(plain(name));
        if (place !== undefined) this.targets[place].push([mesh.morphTargetInfluences, index]);
      }
    });
    /** Names that no mesh has: what this avatar cannot do. */
    this.missing = names.filter((_, i) => !this.targets[i].length);
  }

  apply(face) {
    if (!face) return;
    for (let i = 0; i < this.targets.length; i++) {
      for (const [influences, index] of this.targets[i]) influences[index] = face.values[i] * this.strength;
    }
    if (this.head) {
      this.turn.set(face.rotation[0], face.rotation[1], face.rotation[2], face.rotation[3]);
      this.head.quaternion.copy(this.rest.quaternion).multiply(this.turn);
      this.head.position.set(
        this.rest.position.x + face.position[0],
        this.rest.position.y + face.position[1],
        this.rest.position.z + face.position[2],
      );
    }
  }
}

/**
 * A VRM 1.0 of three-vrm. Ask the server for schema "vrm1" (presets), or "arkit52" for an avatar with "perfect sync".
 * Call `vrm.update(delta)` after `apply`, as always.
 */
export class VrmDriver {
  constructor(vrm, names) {
    this.vrm = vrm;
    this.head = vrm.humanoid?.getNormalizedBoneNode("head") ?? null;
    const expressions = vrm.expressionManager;
    const known = names.map((name) => (expressions?.getExpression(name) ? name : null));
    // Both eyes and each eye at once would shut them twice; looking is done by lookAt where there is one.
    const sides = known.includes("blinkLeft") && known.includes("blinkRight");
    const looks = vrm.lookAt ? /^look/ : /^$/;
    this.expressions = known.map((name) => (name === null || (sides && name === "blink") || looks.test(name) ? null : name));
    this.missing = names.filter((name, i) => known[i] === null);
  }

  apply(face) {
    if (!face) return;
    const { expressionManager, lookAt } = this.vrm;
    for (let i = 0; i < this.expressions.length; i++) {
      if (this.expressions[i]) expressionManager.setValue(this.expressions[i], face.values[i]);
    }
    this.head?.quaternion.set(face.rotation[0], face.rotation[1], face.rotation[2], face.rotation[3]);
    if (lookAt && !lookAt.target) {
      lookAt.yaw = face.gaze[0]; // VRM's signs are ours: yaw grows to the left, pitch downwards
      lookAt.pitch = face.gaze[1];
    }
  }
}

/** "EyeBlink_L", "eyeBlinkLeft", "face.eye_blink_left" → "eyeblinkleft". */
function plain(name) {
  return name
    .replace(/^.*\./, "")
    .replace(/(?<=[a-z])_?([LR])$/, (_, side) => (side === "L" ? "Left" : "Right"))
    .replace(/[_\s-]/g, "")
    .toLowerCase();
}
