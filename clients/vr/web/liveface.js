// A voice in, a face out, in a browser: speaks avatar.v1, plays the voice, gives the face of the moment that is heard.
//
//   const avatar = await connect("ws://127.0.0.1:8801/v1/stream", { audioContext });
//   avatar.output.connect(panner);                 // the voice, to be placed in space
//   await avatar.microphone();                     // or avatar.say(samples, rate)
//   renderer.setAnimationLoop(() => driver.apply(avatar.sample()));

import { AFTER_THE_LAST, Flag, Sampler, SUBPROTOCOL, Type, isOver, packSound, parseFace, parseFrame, parsePoints } from "./wire.js";

export { Sampler, slerp } from "./wire.js";

const RATE = 48_000;
const PIECE = RATE / 10;
const CONNECT_MS = 10_000;

/** The server's refusal: `code` and `reason` as in PROTOCOL.md, and a sentence. */
export class AvatarError extends Error {
  constructor(code, reason, message, retryAfterMs) {
    super(message || reason || `closed with ${code}`);
    this.name = "AvatarError";
    this.code = code;
    this.reason = reason;
    this.retryAfterMs = retryAfterMs;
  }
}

/** Resolves when the server has said session.started; rejects with its refusal. */
export function connect(url, options = {}) {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(url, [SUBPROTOCOL]);
    socket.binaryType = "arraybuffer";
    let error = {};
    const timer = setTimeout(() => {
      socket.close();
      reject(new AvatarError(0, "timeout", `no answer from ${url}`));
    }, CONNECT_MS);
    socket.onopen = () => socket.send(JSON.stringify(hello(options)));
    socket.onmessage = ({ data }) => {
      if (typeof data !== "string") return;
      const said = JSON.parse(data);
      if (said.type === "error") error = said;
      if (said.type !== "session.started") return;
      clearTimeout(timer);
      resolve(new Avatar(socket, said, options));
    };
    socket.onclose = ({ code, reason }) => {
      clearTimeout(timer);
      reject(new AvatarError(code, reason, error.message ?? `cannot speak ${SUBPROTOCOL} with ${url}`, error.retry_after_ms));
    };
  });
}

function hello({ avatar, token, pacing = "realtime", face = {}, resume = null, landmarks = false, mesh = false, name = "liveface-web" }) {
  const said = {
    type: "session.start",
    protocol: "1.0",
    client: { name, version: "1.0", engine: "three.js" },
    avatar_id: avatar ?? null,
    audio: { format: "pcm_s16le", sample_rate: RATE, channels: 1 },
    pacing,
    face: { schema: "arkit52", coords: "gltf", ...face, encoding: "binary" },
    landmarks,
    mesh,
    audio_out: { sample_rate: RATE },
    resume,
  };
  if (token) said.auth = { token };
  return said;
}

/** One conversation. Events: "event" (every JSON event), "points", "closed". */
export class Avatar extends EventTarget {
  #socket;
  #voice;
  #sampler = new Sampler();
  #seq = 0;
  #epoch;
  #microphone = null;
  #error = {};

  constructor(socket, started, { audioContext, bufferMs = 80 } = {}) {
    super();
    this.started = started;
    this.sessionId = started.session_id;
    this.names = started.face.names;
    this.visemeNames = started.face.visemes ?? [];
    this.disclosure = started.disclosure;
    this.audioContext = audioContext ?? new AudioContext({ sampleRate: RATE });
    this.faces = 0;
    this.#voice = new Voice(this.audioContext, bufferMs / 1000);
    this.#epoch = started.epoch;
    this.#socket = socket;
    socket.onmessage = ({ data }) => (typeof data === "string" ? this.#heardEvent(JSON.parse(data)) : this.#heardFrame(data));
    socket.onclose = ({ code, reason }) => this.#closed(code, reason);
  }

  /** The voice, as an AudioNode: connect it to a PannerNode at the avatar's mouth, or to the destination. */
  get output() {
    return this.#voice.output;
  }

  get open() {
    return this.#socket.readyState === WebSocket.OPEN;
  }

  /** Microseconds of the session's timeline that are heard now, or null before the first sound. */
  get headUs() {
    return this.#voice.headUs;
  }

  /** Milliseconds of faces beyond what is heard: what is left before the face stands still. */
  get bufferedMs() {
    const newest = this.#sampler.newestUs;
    return newest === null || this.headUs === null ? 0 : (newest - this.headUs) / 1000;
  }

  /** The face of what is heard now, or null before the first one. The object is used again by the next call. */
  sample() {
    return this.headUs === null ? null : this.#sampler.at(this.headUs);
  }

  /** Push speech: float samples in -1…1, any rate from 8 kHz. `end` ends the segment (pacing "burst"). */
  async say(samples, rate, end = true) {
    const at48 = rate === RATE ? samples : await resampled(samples, rate);
    for (let at = 0; at < at48.length; at += PIECE) this.#push(at48.subarray(at, at + PIECE));
    if (end) this.#tell({ type: "audio.end" });
  }

  /** Push the microphone until `stop` of the result is called. Asks the user. */
  async microphone(constraints = { echoCancellation: true, noiseSuppression: true }) {
    const stream = await navigator.mediaDevices.getUserMedia({ audio: constraints });
    const context = new AudioContext({ sampleRate: RATE });
    await context.audioWorklet.addModule(new URL("./microphone.js", import.meta.url));
    const node = new AudioWorkletNode(context, "liveface-microphone", { numberOfOutputs: 0 });
    node.port.onmessage = ({ data }) => this.#push(data);
    context.createMediaStreamSource(stream).connect(node);
    const stop = async () => {
      for (const track of stream.getTracks()) track.stop();
      await context.close();
    };
    this.#microphone = { stop };
    return this.#microphone;
  }

  /** Silence, now. */
  interrupt() {
    this.#setEpoch((this.#epoch + 1) >>> 0);
    this.#tell({ type: "interrupt" });
  }

  /** session.update: `{ face: { rate: 50 }, landmarks: true }` … */
  update(changes) {
    this.#tell({ type: "session.update", ...changes });
  }

  async close() {
    await this.#microphone?.stop();
    if (this.open) this.#tell({ type: "session.end" });
    this.#socket.close(1000);
    this.#voice.stop();
  }

  #push(samples) {
    const pcm = new Int16Array(samples.length);
    for (let i = 0; i < samples.length; i++) pcm[i] = Math.max(-1, Math.min(1, samples[i])) * 32767;
    if (this.open) this.#socket.send(packSound(pcm, this.#seq++, this.#epoch, AFTER_THE_LAST));
  }

  #tell(event) {
    if (this.open) this.#socket.send(JSON.stringify(event));
  }

  #heardEvent(event) {
    if (event.type === "cleared" && !isOver(event.epoch, this.#epoch)) this.#setEpoch(event.epoch);
    if (event.type === "error") this.#error = event;
    this.dispatchEvent(new CustomEvent("event", { detail: event }));
  }

  #heardFrame(buffer) {
    const frame = parseFrame(buffer);
    if (isOver(frame.epoch, this.#epoch)) return;
    this.#setEpoch(frame.epoch);
    if (frame.type === Type.FACE) {
      this.faces++;
      this.#sampler.push(parseFace(frame, this.names, this.visemeNames));
    } else if (frame.type === Type.AUDIO_OUT) {
      this.#voice.play(new Int16Array(frame.payload), frame.ptsUs);
    } else if (frame.type === Type.LANDMARKS || frame.type === Type.MESH) {
      this.dispatchEvent(new CustomEvent("points", { detail: { ...parsePoints(frame), ptsUs: frame.ptsUs, type: frame.type } }));
    }
  }

  #setEpoch(epoch) {
    if (epoch === this.#epoch) return;
    this.#epoch = epoch;
    this.#voice.hush();
  }

  #closed(code, reason) {
    this.#voice.stop();
    this.dispatchEvent(
      new CustomEvent("closed", { detail: new AvatarError(code, reason, this.#error.message, this.#error.retry_after_ms) }),
    );
  }
}

/** Dated sound, played without a gap. Where it is, the face is: `headUs` is the play-out head. */
class Voice {
  constructor(context, buffer) {
    this.context = context;
    this.buffer = buffer;
    this.output = context.createGain();
    this.anchor = null; // context time at which date 0 would have been heard
    this.endUs = 0; // date of the end of what is scheduled
    this.shownUs = 0;
    this.sources = new Set();
    this.underruns = 0;
  }

  get headUs() {
    if (this.anchor === null) return null;
    const latency = this.context.outputLatency || this.context.baseLatency || 0;
    const heard = (this.context.currentTime - latency - this.anchor) * 1e6;
    // While the sound has run dry nothing is heard, so the face stands; it never goes back in time.
    this.shownUs = Math.max(this.shownUs, Math.min(heard, this.endUs));
    return this.shownUs;
  }

  play(pcm, ptsUs) {
    const date = ptsUs / 1e6;
    let at = this.anchor === null ? -Infinity : this.anchor + date;
    // Too late: the network made a pause. Too early: the server's clock is ahead of this sound card's. Begin anew.
    if (at < this.context.currentTime || at > this.context.currentTime + this.buffer + 0.25) {
      if (this.anchor !== null) this.underruns++;
      at = this.context.currentTime + this.buffer;
      this.anchor = at - date;
    }
    this.endUs = ptsUs + (pcm.length / RATE) * 1e6;
    const buffer = this.context.createBuffer(1, pcm.length, RATE);
    const channel = buffer.getChannelData(0);
    for (let i = 0; i < pcm.length; i++) channel[i] = pcm[i] / 32768;
    const source = this.context.createBufferSource();
    source.buffer = buffer;
    source.connect(this.output);
    source.onended = () => this.sources.delete(source);
    source.start(at);
    this.sources.add(source);
  }

  hush() {
    for (const source of this.sources) source.stop();
    this.sources.clear();
  }

  stop() {
    this.hush();
    this.output.disconnect();
  }
}

async function resampled(samples, rate) {
  const frames = Math.ceil((samples.length * RATE) / rate);
  const offline = new OfflineAudioContext(1, Math.max(1, frames), RATE);
  const buffer = offline.createBuffer(1, samples.length, rate);
  buffer.copyToChannel(samples instanceof Float32Array ? samples : Float32Array.from(samples), 0);
  const source = offline.createBufferSource();
  source.buffer = buffer;
  source.connect(offline.destination);
  source.start();
  return (await offline.startRendering()).getChannelData(0);
}

export { Flag };
