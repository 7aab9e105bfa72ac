// clients/vr/web without a browser: golden vectors, drivers, and a real three-vrm.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import * as THREE from "three";
import { VRMExpression, VRMExpressionManager, VRMExpressionMorphTargetBind, VRMLookAt } from "@pixiv/three-vrm";
import { MorphDriver, VrmDriver } from "../../../../clients/vr/web/drive.js";
import { makeHead } from "../../../../clients/vr/web/head.js";
import * as wire from "../../../../clients/vr/web/wire.js";

const golden = JSON.parse(readFileSync(new URL("../../../../clients/golden.json", import.meta.url), "utf8"));
const bytes = (hex) => Uint8Array.from(Buffer.from(hex, "hex")).buffer;
const near = (a, b, within = 1e-6) => {
  assert.equal(a.length, b.length);
  for (let i = 0; i < a.length; i++) assert.ok(Math.abs(a[i] - b[i]) <= within, `${a} is not ${b}`);
};

test("headers are read as the contract draws them", () => {
  for (const vector of golden.headers) {
    const frame = wire.parseFrame(bytes(vector.hex));
    assert.equal(frame.type, vector.type);
    assert.equal(frame.flags, vector.flags);
    assert.equal(frame.seq, vector.seq);
    assert.equal(frame.epoch, vector.epoch);
    assert.equal(frame.ptsUs, Number(vector.pts_us));
    assert.equal(Buffer.from(frame.payload).toString("hex"), vector.payload_hex);
  }
});

test("sound is packed as the contract draws it", () => {
  for (const vector of golden.headers.filter(({ type }) => type === 1)) {
    const pcm = new Int16Array(bytes(vector.payload_hex));
    const packed = wire.packSound(pcm, vector.seq, vector.epoch, Number(vector.pts_us), (vector.flags & 1) !== 0);
    assert.equal(Buffer.from(packed).toString("hex"), vector.hex);
  }
});

test("broken frames are refused", () => {
  for (const { hex } of golden.refused) assert.throws(() => wire.parseFrame(bytes(hex)), wire.WireError);
});

test("faces and points", () => {
  for (const vector of golden.faces) {
    const visemes = Array(vector.viseme_count).fill("x");
    const face = wire.parseFace(wire.parseFrame(bytes(vector.hex)), vector.names, visemes);
    near(face.values, vector.weights);
    near(face.rotation, vector.rotation);
    near(face.position, vector.position);
    near(face.gaze, vector.gaze);
    near(face.visemes, vector.visemes);
    assert.equal(face.speaking, vector.speaking);
    assert.equal(face.ptsUs, Number(vector.pts_us));
    assert.throws(() => wire.parseFace(wire.parseFrame(bytes(vector.hex)), [...vector.names, "more"], visemes), wire.WireError);
  }
  for (const vector of golden.points) {
    const { count, dims, points } = wire.parsePoints(wire.parseFrame(bytes(vector.hex)));
    assert.deepEqual([count, dims], [vector.points.length, 3]);
    near(points, vector.points.flat());
  }
});

test("slerp", () => {
  for (const { a, b, t, expect, name } of golden.slerp) {
    const dot = wire.slerp(a, b, t).reduce((sum, x, i) => sum + x * expect[i], 0);
    assert.ok(Math.abs(Math.abs(dot) - 1) < 1e-6, name);
  }
});

const aFace = (ptsUs, value, epoch = 0) => ({
  ptsUs,
  epoch,
  values: Float32Array.of(value),
  rotation: Float32Array.of(0, 0, 0, 1),
  position: new Float32Array(3),
  gaze: new Float32Array(2),
  visemes: new Float32Array(0),
});

test("sampling at any rate", () => {
  const sampler = new wire.Sampler();
  assert.equal(sampler.at(0), null);
  for (const { pts_us, value } of golden.sampling.faces) sampler.push(aFace(pts_us, value));
  for (const { pts_us, value } of golden.sampling.samples) near(sampler.at(pts_us).values, [value]);
  sampler.push(aFace(120_000, 0.9, 1)); // a new epoch: what came before is void
  near(sampler.at(100_000).values, [0.9]);
});

test("a sampler keeps a second and not more", () => {
  const sampler = new wire.Sampler();
  for (let i = 0; i < 1000; i++) sampler.push(aFace(i * 40_000, 0));
  assert.ok(sampler.faces.length <= 27);
});

test("epochs wrap", () => {
  assert.equal(wire.isOver(0xffffffff, 0), true);
  assert.equal(wire.isOver(0, 0xffffffff), false);
  assert.equal(wire.isOver(3, 3), false);
});

const NAMES = ["jawOpen", "eyeBlinkLeft", "mouthSmileRight"];
const pose = (values) => ({
  values: Float32Array.from(values),
  rotation: Float32Array.of(0, Math.sin(0.1), 0, Math.cos(0.1)),
  position: Float32Array.of(0.01, 0.02, 0.03),
  gaze: Float32Array.of(10, -5),
});

test("every usual spelling of ARKit's names is found", () => {
  for (const spelled of [["jawOpen", "eyeBlinkLeft", "mouthSmileRight"], ["JawOpen", "EyeBlinkLeft", "MouthSmileRight"], ["jawOpen", "eyeBlink_L", "mouthSmile_R"], ["Face.jaw_open", "Face.eye_blink_left", "Face.mouthSmileR"]]) {
    const mesh = new THREE.Mesh();
    mesh.morphTargetDictionary = Object.fromEntries(spelled.map((name, i) => [name, 2 - i]));
    mesh.morphTargetInfluences = [0, 0, 0];
    const driver = new MorphDriver(new THREE.Group().add(mesh), NAMES);
    driver.apply(pose([0.1, 0.2, 0.3]));
    near(mesh.morphTargetInfluences, [0.3, 0.2, 0.1]);
    assert.deepEqual(driver.missing, []);
  }
});

test("the self-made head has all 52 shapes and turns with the pose", () => {
  const head = makeHead(THREE);
  const names = new Set();
  head.traverse((mesh) => Object.keys(mesh.morphTargetDictionary ?? {}).forEach((name) => names.add(name)));
  assert.equal(names.size, 52);
  const driver = new MorphDriver(head, ["jawOpen", "nothingOfTheKind"], { head: head.userData.head });
  assert.deepEqual(driver.missing, ["nothingOfTheKind"]);
  driver.apply(pose([1, 1]));
  near(head.userData.head.quaternion.toArray(), [0, Math.sin(0.1), 0, Math.cos(0.1)]);
  near(head.userData.head.position.toArray(), [0.01, 0.02, 0.03]);
});

test("the two lips of the self-made head part when the jaw opens, and only inside the mouth", () => {
  const mesh = makeHead(THREE).getObjectByName("face");
  const positions = mesh.geometry.attributes.position;
  const jaw = mesh.geometry.morphAttributes.position[mesh.morphTargetDictionary.jawOpen];
  const slit = new Map();
  for (let i = 0; i < positions.count; i++) {
    if (Math.abs(positions.getY(i) + 0.058) < 1e-7 && positions.getZ(i) > 0) {
      const key = positions.getX(i).toFixed(7);
      slit.set(key, [...(slit.get(key) ?? []), jaw.getY(i)]);
    }
  }
  const gaps = [...slit].filter(([, both]) => both.length === 2).map(([x, [a, b]]) => [Math.abs(x), Math.abs(a - b)]);
  assert.ok(gaps.length > 20);
  for (const [x, gap] of gaps) assert.ok(x < 0.01 ? gap > 0.01 : x < 0.027 || gap < 1e-7, `${x} ${gap}`);
});

test("a VRM of three-vrm: expressions, head bone, gaze; no eye is shut twice", () => {
  const mesh = new THREE.Mesh(new THREE.BufferGeometry());
  mesh.morphTargetInfluences = [0, 0, 0, 0];
  const expressionManager = new VRMExpressionManager();
  ["aa", "blink", "blinkLeft", "blinkRight"].forEach((name, index) => {
    const expression = new VRMExpression(name);
    expression.addBind(new VRMExpressionMorphTargetBind({ primitives: [mesh], index, weight: 1 }));
    expressionManager.registerExpression(expression);
  });
  const turned = [];
  const head = new THREE.Object3D();
  const lookAt = new VRMLookAt({ getNormalizedBoneNode: () => head, getRawBoneNode: () => head }, { applyYawPitch: (yaw, pitch) => turned.push([yaw, pitch]) });
  const vrm = { expressionManager, lookAt, humanoid: { getNormalizedBoneNode: () => head } };
  const driver = new VrmDriver(vrm, ["aa", "blink", "blinkLeft", "blinkRight", "lookUp", "ou"]);
  assert.deepEqual(driver.missing, ["lookUp", "ou"]);
  driver.apply(pose([0.5, 0.7, 0.6, 0.8, 1, 1]));
  expressionManager.update();
  lookAt.update(0.01);
  near(mesh.morphTargetInfluences, [0.5, 0, 0.6, 0.8]);
  near(head.quaternion.toArray(), [0, Math.sin(0.1), 0, Math.cos(0.1)]);
  assert.deepEqual(turned, [[10, -5]]);
});
