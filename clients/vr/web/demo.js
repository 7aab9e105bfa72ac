// The demo page: a head in a room, its voice at its mouth, in a browser window or in a headset.
//   index.html?url=ws://127.0.0.1:8801/v1/stream&avatar=demo&token=…

import * as THREE from "three";
import { GLTFLoader } from "three/addons/loaders/GLTFLoader.js";
import { VRButton } from "three/addons/webxr/VRButton.js";
import { connect } from "./liveface.js";
import { MorphDriver, VrmDriver } from "./drive.js";
import { makeHead } from "./head.js";

const query = new URLSearchParams(location.search);
const url = query.get("url") ?? "ws://127.0.0.1:8801/v1/stream";
const said = document.getElementById("said");

const renderer = new THREE.WebGLRenderer({ antialias: true, preserveDrawingBuffer: query.has("keep") });
renderer.setPixelRatio(Math.min(2, devicePixelRatio));
renderer.xr.enabled = true;
document.body.prepend(renderer.domElement);

const scene = new THREE.Scene();
scene.background = new THREE.Color(0x1b2230);
const camera = new THREE.PerspectiveCamera(28, 1, 0.02, 20);
camera.position.set(0.05, 1.55, 0.78);
camera.lookAt(0, 1.525, 0);
scene.add(new THREE.HemisphereLight(0xdfe9ff, 0x3a2f2a, 1.6));
const key = new THREE.DirectionalLight(0xfff2e0, 2.4);
key.position.set(0.7, 1.9, 1.6);
scene.add(key);
const rim = new THREE.DirectionalLight(0x8fb2ff, 1.4);
rim.position.set(-1.2, 1.8, -1.0);
scene.add(rim);

THREE.AudioContext.setContext(new AudioContext({ sampleRate: 48000 })); // the rate of the voice: nothing is resampled
// The listener rides on the camera (which is the headset in VR); the voice comes out of the mouth.
const listener = new THREE.AudioListener();
camera.add(listener);
scene.add(camera);
const place = new THREE.Group();
place.position.set(0, 1.55, 0);
scene.add(place);
const voice = new THREE.PositionalAudio(listener);
voice.setRefDistance(0.6);
voice.position.set(0, -0.06, 0.1);
place.add(voice);

let avatar = null;
let driver = null;
let vrm = null;
let frames = 0;

function show(object, made) {
  for (const child of [...place.children]) if (child !== voice) place.remove(child);
  place.add(object);
  driver = made;
  if (driver.missing.length) console.info("this avatar has no", driver.missing.join(", "));
}

async function begin() {
  avatar = await connect(url, {
    avatar: query.get("avatar") ?? undefined,
    token: query.get("token") ?? undefined,
    pacing: query.get("pacing") ?? "realtime",
    audioContext: listener.context,
  });
  voice.setNodeSource(avatar.output);
  document.getElementById("mark").hidden = !avatar.disclosure?.ai_generated;
  document.getElementById("mark").textContent = avatar.disclosure?.label || "AI";
  const head = makeHead(THREE);
  show(head, new MorphDriver(head, avatar.names, { head: head.userData.head }));
  avatar.addEventListener("event", ({ detail }) => {
    if (detail.type === "error" || detail.type === "warning") said.textContent = detail.message ?? detail.code;
  });
  avatar.addEventListener("closed", ({ detail }) => (said.textContent = `${detail.message} (${detail.code})`));
  said.textContent = "Connected. Speak, or choose a file.";
}

document.getElementById("talk").onclick = async () => {
  await listener.context.resume();
  try {
    await avatar.microphone();
    said.textContent = "Listening.";
  } catch (refused) {
    said.textContent = `No microphone: ${refused.message}`;
  }
};
document.getElementById("hush").onclick = () => avatar?.interrupt();
document.getElementById("file").onchange = async ({ target }) => {
  await listener.context.resume();
  const decoded = await listener.context.decodeAudioData(await target.files[0].arrayBuffer());
  await speak(decoded.getChannelData(0), decoded.sampleRate);
};
document.getElementById("avatar").onchange = async ({ target }) => {
  const loader = new GLTFLoader();
  const { VRMLoaderPlugin, VRMUtils } = await import("@pixiv/three-vrm");
  loader.register((parser) => new VRMLoaderPlugin(parser));
  const gltf = await loader.loadAsync(URL.createObjectURL(target.files[0]));
  vrm = gltf.userData.vrm ?? null;
  if (vrm) {
    VRMUtils.rotateVRM0(vrm);
    vrm.scene.position.y = -1.45;
    show(vrm.scene, new VrmDriver(vrm, avatar.names));
  } else {
    show(gltf.scene, new MorphDriver(gltf.scene, avatar.names));
  }
};

/** In real-time pacing two seconds may be queued, so a file is sent at the pace it is heard. */
async function speak(samples, rate) {
  said.textContent = "Speaking.";
  const piece = Math.round(rate / 5);
  for (let at = 0; at < samples.length; at += piece) {
    await avatar.say(samples.subarray(at, at + piece), rate, false);
    await new Promise((done) => setTimeout(done, 195));
  }
}

function resize() {
  renderer.setSize(innerWidth, innerHeight);
  camera.aspect = innerWidth / innerHeight;
  camera.updateProjectionMatrix();
}
addEventListener("resize", resize);
resize();

const clock = new THREE.Clock();
renderer.setAnimationLoop(() => {
  const delta = clock.getDelta();
  if (avatar) driver?.apply(avatar.sample());
  vrm?.update(delta);
  renderer.render(scene, camera);
  frames++;
});
if (navigator.xr) document.body.append(VRButton.createButton(renderer));

// For tests and the console.
globalThis.liveface = { THREE, scene, camera, renderer, begin, speak, show, get avatar() { return avatar; }, get driver() { return driver; }, get frames() { return frames; } };
begin().catch((refused) => (said.textContent = `${refused.message} (${refused.code ?? ""} ${refused.reason ?? ""})`));
