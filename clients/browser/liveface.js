/**
 * Liveface in a page: speak, and the face speaks. No dependencies, no build step.
 *
 *   import { Liveface } from "./liveface.js";
 *   const face = new Liveface({ server: "https://faces.example", avatar: "demo" });
 *   video.srcObject = face.stream;
 *   await face.connect();
 *   await face.sendMicrophone();
 *
 * One `Liveface` is one conversation. It opens a session over HTTP, one WebRTC connection for sound, picture and
 * events, and opens both again, with back-off, when they are lost. Everything it has to say comes as DOM events:
 * `state`, `finding`, `numbers`, `microphone`, and every event of the server under its own type (`speech.started`,
 * `cleared`, `stats`, `landmarks`, ...), all of these also as `event`.
 */

export const VERSION = "0.1.0";

/** How long each step may take before the connection is given up and tried again, in milliseconds. */
export const PATIENCE = Object.freeze({ request: 10_000, gather: 400, path: 12_000, silence: 4_000, flicker: 2_500, noPath: 5_000 });

/**
 * @typedef {"idle"|"asking"|"connecting"|"live"|"waiting"|"failed"|"closed"} State
 * @typedef {{ session_id: string, token?: string, whip_url?: string, whep_url?: string, watch_url?: string, ice_servers?: RTCIceServer[],
 *   expires_at?: number|string, disclosure?: Disclosure }} Ticket what `POST /v1/sessions` answers
 * @typedef {{ ai_generated: boolean, label?: string }} Disclosure
 * @typedef {{ id: string, title?: string, portrait_url?: string, width?: number, height?: number,
 *   lookahead_ms?: number, synthetic?: boolean }} Avatar
 * @typedef {{ id: string, name?: string, engine?: string, language?: string }} Voice
 * @typedef {{ type: string, [field: string]: any }} ServerEvent
 * @typedef {"ok"|"busy"|"warn"|"fail"|"off"} Verdict
 * @typedef {{ name: string, title: string, verdict: Verdict, words: string, advice?: string }} Finding
 */

/** A failure with a code a program can switch on and words a person can read. */
export class LivefaceError extends Error {
  /**
   * @param {string} code
   * @param {string} message
   * @param {{ status?: number, retryAfterMs?: number, permanent?: boolean, cause?: unknown }} [more]
   */
  constructor(code, message, more = {}) {
    super(message, { cause: more.cause });
    this.name = "LivefaceError";
    this.code = code;
    this.status = more.status ?? 0;
    this.retryAfterMs = more.retryAfterMs ?? 0;
    /** True when trying again the same way cannot help. */
    this.permanent = more.permanent ?? false;
  }
}

/**
 * Milliseconds to wait before attempt number `attempt` (0 = first retry): doubling, at most 15 s, and never in step
 * with the other pages that lost the same server.
 * @param {number} attempt
 * @param {number} [atLeastMs] what the server asked for in Retry-After
 * @param {number} [chance] a number in 0..1
 */
export function backoff(attempt, atLeastMs = 0, chance = Math.random()) {
  const ceiling = Math.min(15_000, 500 * 2 ** Math.min(attempt, 10));
  return Math.round(Math.max(atLeastMs + ceiling * 0.25 * chance, ceiling * (0.5 + 0.5 * chance)));
}

/** @param {Response} response @returns {Promise<LivefaceError>} */
async function refusal(response) {
  /** @type {any} */
  let problem = {};
  try {
    problem = JSON.parse(await response.text());
  } catch {
    // A proxy's HTML page says nothing more than its status does.
  }
  const detail = problem.detail || problem.title || `the server answered ${response.status}`;
  const seconds = Number(response.headers.get("Retry-After")) || 0;
  const codes = /** @type {Record<number, string>} */ ({
    400: "bad_request", 401: "unauthorised", 403: "forbidden", 404: "not_found", 413: "too_big", 415: "unsupported",
    429: "too_many", 501: "unsupported", 503: "no_slot",
  });
  let code = codes[response.status] ?? "server_error";
  if (code === "no_slot" && /drain|shutting|restart/i.test(`${problem.type} ${problem.title} ${problem.detail}`)) code = "draining";
  const permanent = response.status >= 400 && response.status < 500 && response.status !== 429 && response.status !== 408;
  return new LivefaceError(code, detail, { status: response.status, retryAfterMs: seconds * 1000, permanent });
}

/** @param {unknown} error @returns {LivefaceError} what getUserMedia's error means to a person */
function microphoneTrouble(error) {
  const name = error instanceof Error ? error.name : "";
  const [code, words] = {
    NotAllowedError: ["microphone_denied", "The browser was told not to use the microphone."],
    SecurityError: ["microphone_denied", "The browser was told not to use the microphone."],
    NotFoundError: ["microphone_missing", "No microphone is connected."],
    OverconstrainedError: ["microphone_missing", "The chosen microphone is gone."],
    NotReadableError: ["microphone_busy", "Another program is holding the microphone."],
    AbortError: ["microphone_busy", "The microphone could not be started."],
  }[name] ?? ["microphone_failed", `The microphone could not be opened (${name || error}).`];
  return new LivefaceError(code, words, { permanent: true, cause: error });
}

/**
 * What is known about a connection, as plain values. `diagnose` reads it; nothing else does.
 * @typedef {Object} Facts
 * @property {State} state
 * @property {boolean} webrtc the browser has RTCPeerConnection
 * @property {boolean} secure the page may ask for a microphone
 * @property {"unknown"|"ok"|"unreachable"|"refused"} server
 * @property {LivefaceError|null} trouble the last failure
 * @property {string} microphone "off" | "asking" | "on" | "muted" or the code of a LivefaceError
 * @property {string} ice RTCIceConnectionState of the last attempt
 * @property {boolean} relayOffered a TURN server is among the ICE servers
 * @property {string} route "" | "host" | "srflx" | "prflx" | "relay" of the chosen pair
 * @property {string} protocol "udp" | "tcp" of the chosen pair
 * @property {boolean} picture frames are arriving
 * @property {boolean} sound the browser lets the sound be heard
 * @property {number} [lossPercent]
 * @property {number} [roundTripMs]
 */

/**
 * The connection doctor: facts in, findings in words out, first cause first. Pure.
 * @param {Facts} facts
 * @returns {Finding[]}
 */
export function diagnose(facts) {
  const code = facts.trouble?.code ?? "";
  const trying = facts.state === "asking" || facts.state === "connecting";
  const idle = facts.state === "idle" || facts.state === "closed";
  /** @type {Finding[]} */
  const findings = [];
  /** @type {(name: string, title: string, verdict: Verdict, words: string, advice?: string) => void} */
  const say = (name, title, verdict, words, advice) => void findings.push({ name, title, verdict, words, advice });

  if (!facts.webrtc)
    say("browser", "Browser", "fail", "This browser has no WebRTC.", "Use a current Firefox, Chrome, Edge or Safari.");

  if (facts.server === "unreachable")
    say("server", "Server", "fail", "The server does not answer.",
      "Check that it is running and that this device is online. The page keeps trying.");
  else if (code === "unauthorised")
    say("server", "Server", "fail", "The server asks for a key.", "Enter the access key you were given.");
  else if (code === "draining")
    say("server", "Server", "warn", "The server is restarting.", "The page reconnects by itself.");
  else if (facts.server === "ok") say("server", "Server", "ok", "Answers.");
  else say("server", "Server", facts.server === "refused" ? "warn" : trying ? "busy" : "off",
    facts.server === "refused" ? `Said no: ${facts.trouble?.message ?? "no reason given"}.` : trying ? "Asking…" : "Not asked yet.");

  if (code === "no_slot")
    say("seat", "Seat", "warn", "All seats are taken.", "Someone has to leave first. The page tries again by itself.");
  else if (code === "too_many")
    say("seat", "Seat", "warn", "Too many attempts from here.", "Wait a moment. The page tries again by itself.");
  else if (code === "forbidden")
    say("seat", "Seat", "fail", "This presenter may not be used.", facts.trouble?.message);
  else if (code === "not_found") say("seat", "Seat", "fail", "This presenter or session does not exist.", "Choose another.");
  else if (facts.state === "connecting" || facts.state === "live") say("seat", "Seat", "ok", "Yours.");
  else say("seat", "Seat", trying ? "busy" : "off", trying ? "Asking…" : "Not asked for yet.");

  if (facts.state === "live" && facts.route) {
    const relayed = facts.route === "relay";
    const slow = facts.protocol === "tcp";
    say("path", "Network path", slow ? "warn" : "ok",
      relayed ? `Through a relay (TURN, ${facts.protocol.toUpperCase()}).` : `Direct (${facts.protocol.toUpperCase()}).`,
      slow ? "UDP seems to be blocked here; TCP works, with more delay." : undefined);
  } else if (code === "no_path")
    say("path", "Network path", "fail",
      facts.relayOffered ? "Neither a direct path nor the relay got through." : "The server answers, but sound and picture find no way: UDP seems to be blocked.",
      facts.relayOffered ? "A firewall may block UDP and the TURN ports. Try another network." :
        "Try another network, or turn a VPN off. The operator can add a TURN relay (see the README).");
  else say("path", "Network path", facts.state === "connecting" ? "busy" : "off",
    facts.state === "connecting" ? `Looking for one (ICE: ${facts.ice || "new"}).` : "None yet.");

  if (facts.state === "live") {
    const lossy = (facts.lossPercent ?? 0) > 3;
    const far = (facts.roundTripMs ?? 0) > 300;
    if (!facts.picture) say("media", "Picture", "warn", "Connected, but no picture arrives.", "The page reconnects if this lasts.");
    else if (lossy || far)
      say("media", "Picture", "warn", lossy ? `The network loses ${facts.lossPercent?.toFixed(0)} % of packets.` : `The network answers after ${facts.roundTripMs?.toFixed(0)} ms.`,
        "Come closer to the access point, or use a cable.");
    else say("media", "Picture", "ok", "Arriving.");
  } else say("media", "Picture", "off", code === "media_stopped" ? "Stopped arriving." : "None yet.");

  const microphone = /** @type {Record<string, [Verdict, string, string?]>} */ ({
    off: ["off", "Off. Typing and audio files work without it."],
    asking: ["busy", "Waiting for your permission.", "Answer the browser's question at the top of the window."],
    on: ["ok", "On."],
    muted: ["ok", "Ready; nothing is sent until you talk."],
    microphone_denied: ["fail", "The microphone is blocked.",
      "Click the icon left of the address, allow the microphone, then try again. Typing works meanwhile."],
    microphone_missing: ["fail", "No microphone was found.", "Plug one in, then try again. Typing works meanwhile."],
    microphone_busy: ["fail", "Another program holds the microphone.", "Close it, then try again."],
    microphone_insecure: ["fail", "Browsers give a microphone only to secure pages.",
      "Open this page over https, or on localhost."],
    microphone_ended: ["warn", "The microphone was unplugged.", "Plug it in again, or choose another."],
  })[facts.microphone] ?? ["fail", "The microphone could not be opened.", "Choose another, then try again."];
  say("microphone", "Microphone", microphone[0], microphone[1], microphone[2]);

  if (facts.state === "live" && !facts.sound)
    say("sound", "Sound", "warn", "The browser holds the sound back.", "Press “Turn on sound”.");
  else say("sound", "Sound", facts.state === "live" ? "ok" : "off", facts.state === "live" ? "Playing." : "None yet.");
  return idle ? findings.map((f) => (f.verdict === "busy" ? { ...f, verdict: "off" } : f)) : findings;
}

/**
 * The browser's own measurements, as numbers a person can use. Missing ones are null.
 * @typedef {Object} Numbers
 * @property {number|null} fps
 * @property {number|null} kbps received, sound and picture
 * @property {number|null} lossPercent of packets received since the last reading
 * @property {number|null} roundTripMs
 * @property {number|null} videoBufferMs mean wait in the video jitter buffer since the last reading
 * @property {number|null} audioBufferMs the same for sound
 * @property {number|null} decodeMs per picture
 * @property {number|null} avOffsetMs positive: sound is early
 * @property {number|null} concealedPercent of the sound since the last reading was invented by the browser
 * @property {number} freezes since the connection began
 * @property {number} frames decoded since the connection began
 * @property {number} width
 * @property {number} height
 * @property {string} codec
 * @property {string} route
 * @property {string} protocol
 * @property {number} bytes received since the connection began
 */

/**
 * Two readings of `getStats` in, numbers out. Pure.
 * @param {Map<string, any>} now @param {Map<string, any>} before
 * @returns {Numbers}
 */
export function digest(now, before) {
  /** @type {(kind: string) => any} */
  const inbound = (kind) => [...now.values()].find((s) => s.type === "inbound-rtp" && s.kind === kind) ?? {};
  const video = inbound("video");
  const audio = inbound("audio");
  /** @type {(stat: any, field: string) => number} */
  const grown = (stat, field) => (stat[field] ?? 0) - (before.get(stat.id)?.[field] ?? 0);
  /** @type {(a: number, b: number, scale?: number) => number|null} */
  const ratio = (a, b, scale = 1) => (b > 0 ? (a / b) * scale : null);
  const transport = [...now.values()].find((s) => s.type === "transport" && s.selectedCandidatePairId);
  const pair = (transport && now.get(transport.selectedCandidatePairId)) ??
    [...now.values()].find((s) => s.type === "candidate-pair" && s.nominated && s.state === "succeeded") ?? {};
  const local = now.get(pair.localCandidateId) ?? {};
  const seconds = ((video.timestamp ?? audio.timestamp ?? 0) - (before.get(video.id ?? audio.id)?.timestamp ?? 0)) / 1000;
  const bytes = (video.bytesReceived ?? 0) + (audio.bytesReceived ?? 0);
  const lost = grown(video, "packetsLost") + grown(audio, "packetsLost");
  const received = grown(video, "packetsReceived") + grown(audio, "packetsReceived");
  const playing = video.estimatedPlayoutTimestamp && audio.estimatedPlayoutTimestamp;
  return {
    fps: video.framesPerSecond ?? null,
    kbps: before.size ? ratio((grown(video, "bytesReceived") + grown(audio, "bytesReceived")) * 8, seconds, 1e-3) : null,
    lossPercent: ratio(Math.max(0, lost), received + Math.max(0, lost), 100),
    roundTripMs: pair.currentRoundTripTime === undefined ? null : pair.currentRoundTripTime * 1000,
    videoBufferMs: ratio(grown(video, "jitterBufferDelay"), grown(video, "jitterBufferEmittedCount"), 1000),
    audioBufferMs: ratio(grown(audio, "jitterBufferDelay"), grown(audio, "jitterBufferEmittedCount"), 1000),
    decodeMs: ratio(grown(video, "totalDecodeTime"), grown(video, "framesDecoded"), 1000),
    avOffsetMs: playing ? audio.estimatedPlayoutTimestamp - video.estimatedPlayoutTimestamp : null,
    concealedPercent: ratio(grown(audio, "concealedSamples"), grown(audio, "totalSamplesReceived"), 100),
    freezes: video.freezeCount ?? 0,
    frames: video.framesDecoded ?? 0,
    width: video.frameWidth ?? 0,
    height: video.frameHeight ?? 0,
    codec: (now.get(video.codecId)?.mimeType ?? "").replace("video/", ""),
    route: local.candidateType ?? "",
    protocol: (local.relayProtocol ?? local.protocol ?? "").toLowerCase(),
    bytes,
  };
}

/** Loudness of a stream in 0..1 on a scale that looks right to a speaker; `stop()` when done with it. */
export class Loudness {
  /** @param {MediaStream} stream @param {AudioContext} context */
  constructor(stream, context) {
    // A clone keeps its own `enabled`: the meter moves while the sent track is muted.
    this.track = stream.getAudioTracks()[0].clone();
    this.track.enabled = true;
    this.source = context.createMediaStreamSource(new MediaStream([this.track]));
    this.analyser = context.createAnalyser();
    this.analyser.fftSize = 1024;
    this.source.connect(this.analyser);
    this.samples = new Float32Array(this.analyser.fftSize);
  }

  read() {
    this.analyser.getFloatTimeDomainData(this.samples);
    let power = 1e-9;
    for (const sample of this.samples) power += sample * sample;
    const decibels = 10 * Math.log10(power / this.samples.length);
    return Math.min(1, Math.max(0, (decibels + 60) / 50));
  }

  stop() {
    this.source.disconnect();
    this.track.stop();
  }
}

/** One attempt: one ticket, one peer connection. A lost call is thrown away, never mended. */
class Call {
  /** @param {Ticket} ticket @param {boolean} viewer */
  constructor(ticket, viewer) {
    this.ticket = ticket;
    this.viewer = viewer;
    this.over = false;
    /** @type {string} */
    this.location = "";
    this.born = performance.now();
    this.pc = new RTCPeerConnection({ iceServers: ticket.ice_servers ?? [], bundlePolicy: "max-bundle" });
    /** @type {RTCDataChannel|null} */
    this.channel = null;
    /** @type {RTCRtpTransceiver|null} */
    this.voice = null;
    /** @type {Map<string, any>} */
    this.before = new Map();
    /** The browser's clock when bytes last grew. */
    this.fed = performance.now();
    this.bytes = 0;
  }

  /** Closes, and tells the server, so that the seat is free at once. @param {string} server */
  end(server) {
    if (this.over) return;
    this.over = true;
    this.pc.close();
    if (this.viewer && !this.location) return;
    const { session_id, token } = this.ticket;
    const unconnected = new URL(`/v1/sessions/${encodeURIComponent(session_id)}`, `${server}/`).href;
    // keepalive: this also has to leave when the page is being closed.
    const headers = token ? { Authorization: `Bearer ${token}` } : undefined;
    fetch(this.location || unconnected, { method: "DELETE", headers, keepalive: true }).catch(() => undefined);
  }
}

export class Liveface extends EventTarget {
  /**
   * @param {Object} [wishes]
   * @param {string} [wishes.server] where the engine is; default: where this page came from
   * @param {string} [wishes.token] the access key, if the server asks for one
   * @param {string} [wishes.avatar] which presenter; default: the server's first
   * @param {number} [wishes.lookahead] chunks of 40 ms the face may wait to be sure of a sound
   * @param {() => Promise<Ticket>} [wishes.ticket] opens the session instead of this class: your own backend holds the
   *   key, calls `POST /v1/sessions`, and hands the answer to the page
   * @param {string} [wishes.watch] a session id: look on instead of speaking
   * @param {boolean} [wishes.reconnect] default true
   * @param {MediaTrackConstraints} [wishes.microphone] laid over echo cancellation, noise suppression and gain control
   * @param {typeof fetch} [wishes.fetch]
   */
  constructor(wishes = {}) {
    super();
    this.server = (wishes.server ?? globalThis.location?.origin ?? "").replace(/\/$/, "");
    this.token = wishes.token ?? "";
    this.avatar = wishes.avatar ?? "";
    this.lookahead = wishes.lookahead;
    this.watch = wishes.watch ?? "";
    this.reconnect = wishes.reconnect ?? true;
    this.constraints = wishes.microphone ?? {};
    this.openTicket = wishes.ticket;
    this.fetch = wishes.fetch ?? globalThis.fetch.bind(globalThis);
    /** The presenter. The same stream for the whole life of this object; its tracks change when it reconnects. */
    this.stream = new MediaStream();
    /** @type {State} */
    this.state = "idle";
    /** @type {Ticket|null} */
    this.session = null;
    /** @type {LivefaceError|null} */
    this.trouble = null;
    /** @type {Numbers|null} */
    this.numbers = null;
    this.epoch = 0;
    /** @type {MediaStream|null} */
    this.microphone = null;
    this.microphoneState = "off";
    this._listening = true;
    this._landmarks = false;
    this._heard = true;
    /** @type {Call|null} */
    this._call = null;
    this._attempt = 0;
    /** @type {ReturnType<typeof setTimeout>|undefined} */
    this._timer = undefined;
    /** @type {ReturnType<typeof setInterval>|undefined} */
    this._pulse = undefined;
    /** @type {Facts["server"]} */
    this._server = "unknown";
    this._ice = "";
    /** @type {{ resolve: () => void, reject: (error: LivefaceError) => void }[]} */
    this._waiting = [];
    this._leave = () => this._call?.end(this.server);
    this._online = () => this.state === "waiting" && this._dial();
  }

  // ---- what the server has

  /** @returns {Promise<Avatar[]>} */
  async avatars() {
    return (await this._json("GET", "/v1/avatars")).avatars ?? [];
  }

  /** @returns {Promise<{ voices: Voice[], advice?: string }>} `voices` may be empty; then `advice` says what to install */
  async voices() {
    return { voices: [], ...(await this._json("GET", "/v1/voices")) };
  }

  /** @returns {Promise<{ name: string, version: string, backend?: string, model?: string, probe?: boolean }>} */
  async version() {
    return this._json("GET", "/version");
  }

  // ---- the conversation

  /**
   * Opens the session and the connection. Resolves when the picture arrives; rejects only when trying again cannot
   * help (or `reconnect` is false). Until then `state` says "waiting" with `retryInMs`.
   */
  connect() {
    const live = new Promise((resolve, reject) => {
      this._waiting.push({ resolve: () => resolve(undefined), reject });
    });
    if (this.state === "live") this._settle(null);
    else if (!this._call) {
      globalThis.addEventListener?.("pagehide", this._leave);
      globalThis.addEventListener?.("online", this._online);
      this._attempt = 0;
      this._dial();
    }
    return live;
  }

  /**
   * Sends a microphone (or any sound stream); null stops it and gives the device back. May come before or after
   * `connect`, and again to change the device.
   * @param {MediaStream | string | null} [source] a stream, a device id, or nothing for the default microphone
   * @returns {Promise<MediaStream|null>}
   */
  async sendMicrophone(source = "") {
    if (source === null) {
      this._setMicrophone(null, "off");
      return null;
    }
    if (source instanceof MediaStream) {
      this._setMicrophone(source, "on");
      return source;
    }
    if (!navigator.mediaDevices?.getUserMedia) {
      this._setMicrophone(null, "microphone_insecure");
      throw new LivefaceError("microphone_insecure", "Browsers give a microphone only to https pages and to localhost.", { permanent: true });
    }
    this._setMicrophone(this.microphone, "asking");
    try {
      const stream = await navigator.mediaDevices.getUserMedia({
        audio: {
          echoCancellation: true, noiseSuppression: true, autoGainControl: true, channelCount: 1,
          ...(source ? { deviceId: { exact: source } } : {}), ...this.constraints,
        },
      });
      this._setMicrophone(stream, "on");
      return stream;
    } catch (error) {
      const trouble = microphoneTrouble(error);
      this._setMicrophone(null, trouble.code);
      throw trouble;
    }
  }

  /** Whether the microphone is heard. False sends silence: the device stays open, so talking starts at once. */
  get listening() {
    return this._listening;
  }

  set listening(open) {
    this._listening = open;
    for (const track of this.microphone?.getAudioTracks() ?? []) track.enabled = open;
    if (this.microphone) this._microphoneIs(open ? "on" : "muted");
  }

  /**
   * Lets the face speak an audio file. Any format the server's decoder opens.
   * @param {Blob} file
   */
  async sendFile(file) {
    return this._json("POST", this._path("audio"), file, file.type || "application/octet-stream");
  }

  /** @param {string} text @param {string} [voice] an id from `voices()` @returns {Promise<{ segment_id: string }>} */
  async say(text, voice) {
    return this._json("POST", this._path("say"), JSON.stringify({ text, ...(voice ? { voice } : {}) }));
  }

  /** Stops the face now. Over the data channel when there is one: it is the faster road. */
  async interrupt() {
    if (this.send({ type: "interrupt" })) return;
    await this._json("POST", this._path("interrupt"));
  }

  /** Asks for `landmarks` events (or no longer), to draw over the picture. @param {boolean} wanted */
  landmarks(wanted) {
    this._landmarks = wanted;
    this.send({ type: "session.update", landmarks: wanted });
  }

  /** Sends one JSON event on the data channel. @param {ServerEvent} event @returns {boolean} false: the channel is not open */
  send(event) {
    const channel = this._call?.channel;
    if (channel?.readyState !== "open") return false;
    channel.send(JSON.stringify(event));
    return true;
  }

  /** Gives the seat back and asks for a new one: after `avatar` was changed, or when a person is tired of waiting. */
  redial() {
    this._attempt = 0;
    this.trouble = null;
    this._dial();
  }

  /** The peer connection's own report; null when there is none. @returns {Promise<RTCStatsReport|null>} */
  async stats() {
    return this._call?.pc.getStats() ?? null;
  }

  /** Tell this object whether the page can be heard: it knows the video element, the doctor does not. @param {boolean} yes */
  heard(yes) {
    this._heard = yes;
    this._findings();
  }

  /** Ends the conversation, frees the seat, gives the microphone back. The object can connect again. */
  async close() {
    clearTimeout(this._timer);
    globalThis.removeEventListener?.("pagehide", this._leave);
    globalThis.removeEventListener?.("online", this._online);
    this._drop();
    this._setMicrophone(null, "off");
    this._settle(new LivefaceError("closed", "The conversation was ended.", { permanent: true }));
    this.trouble = null;
    this._is("closed");
  }

  /** The doctor's facts, now. @returns {Facts} */
  facts() {
    return {
      state: this.state,
      webrtc: "RTCPeerConnection" in globalThis,
      secure: globalThis.isSecureContext ?? true,
      server: this._server,
      trouble: this.trouble,
      microphone: this.microphoneState,
      ice: this._ice,
      relayOffered: JSON.stringify(this.session?.ice_servers ?? []).includes("turn"),
      route: this.numbers?.route ?? "",
      protocol: this.numbers?.protocol ?? "",
      picture: this.state === "live" && (this.numbers === null || this.numbers.frames > 0),
      sound: this._heard,
      lossPercent: this.numbers?.lossPercent ?? undefined,
      roundTripMs: this.numbers?.roundTripMs ?? undefined,
    };
  }

  // ---- inside

  /** @param {string} verb */
  _path(verb) {
    if (!this.session) throw new LivefaceError("not_connected", "There is no session yet: call connect() first.");
    return `/v1/sessions/${encodeURIComponent(this.session.session_id)}/${verb}`;
  }

  /** @param {string} url */
  _absolute(url) {
    return new URL(url, `${this.server}/`).href;
  }

  /**
   * @param {string} method @param {string} url @param {BodyInit} [body] @param {string} [type] @param {string} [token]
   * @returns {Promise<Response>}
   */
  async _request(method, url, body, type = "application/json", token = this.session?.token || this.token) {
    /** @type {Record<string, string>} */
    const headers = body === undefined ? {} : { "Content-Type": type };
    if (token) headers.Authorization = `Bearer ${token}`;
    let response;
    try {
      // An audio file may take long to climb; everything else is small.
      const signal = body instanceof Blob ? undefined : AbortSignal.timeout(PATIENCE.request);
      response = await this.fetch(this._absolute(url), { method, headers, body, signal, cache: "no-store" });
    } catch (cause) {
      throw new LivefaceError("unreachable", "The server does not answer.", { cause });
    }
    if (!response.ok) throw await refusal(response);
    return response;
  }

  /** @param {string} method @param {string} url @param {BodyInit} [body] @param {string} [type] @returns {Promise<any>} */
  async _json(method, url, body, type) {
    const text = await (await this._request(method, url, body, type)).text();
    return text ? JSON.parse(text) : {};
  }

  /** @param {string} type @param {any} detail */
  _emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  /** @param {State} state @param {{ retryInMs?: number }} [more] */
  _is(state, more = {}) {
    this.state = state;
    this._emit("state", { state, trouble: this.trouble, attempt: this._attempt, ...more });
    this._findings();
  }

  _findings() {
    this._emit("finding", diagnose(this.facts()));
  }

  /** @param {LivefaceError|null} error */
  _settle(error) {
    for (const { resolve, reject } of this._waiting.splice(0)) error ? reject(error) : resolve();
  }

  /** @param {MediaStream|null} stream @param {string} state */
  _setMicrophone(stream, state) {
    if (this.microphone && this.microphone !== stream) for (const track of this.microphone.getTracks()) track.stop();
    this.microphone = stream;
    const track = stream?.getAudioTracks()[0] ?? null;
    if (track) {
      track.enabled = this._listening;
      track.contentHint = "speech";
      track.onended = () => this.microphone === stream && this._setMicrophone(null, "microphone_ended");
    }
    this._call?.voice?.sender.replaceTrack(track).catch(() => undefined);
    this._microphoneIs(state === "on" && !this._listening ? "muted" : state);
  }

  /** @param {string} state */
  _microphoneIs(state) {
    this.microphoneState = state;
    this._emit("microphone", { state, stream: this.microphone });
    this._findings();
  }

  _drop() {
    clearInterval(this._pulse);
    this._call?.end(this.server);
    this._call = null;
    this.session = null;
    this.numbers = null;
    for (const track of this.stream.getTracks()) this.stream.removeTrack(track);
  }

  async _dial() {
    clearTimeout(this._timer);
    this._drop();
    this._is("asking");
    /** @type {Call|null} */
    let call = null;
    const dialled = (this._dialled = Symbol("dialled"));
    try {
      const ticket = await this._ticket();
      if (dialled !== this._dialled || this.state !== "asking") return; // closed, or dialled again, meanwhile
      this._server = "ok";
      this.session = ticket;
      call = this._call = new Call(ticket, Boolean(this.watch));
      this._is("connecting");
      await this._offer(call);
    } catch (error) {
      if (dialled === this._dialled && this._call === call)
        this._lost(error instanceof LivefaceError ? error : new LivefaceError("failed", String(error), { cause: error }));
    }
  }

  /** @returns {Promise<Ticket>} */
  async _ticket() {
    if (this.watch)
      return {
        session_id: this.watch, token: this.token, whep_url: `/v1/whep/${encodeURIComponent(this.watch)}`,
        ice_servers: await this._json("GET", "/v1/ice-servers").then((r) => r.ice_servers ?? r.iceServers ?? r, () => []),
      };
    if (this.openTicket) return this.openTicket();
    return this._json("POST", "/v1/sessions", JSON.stringify({
      ...(this.avatar ? { avatar_id: this.avatar } : {}), transport: "webrtc",
      ...(this.lookahead === undefined ? {} : { lookahead: this.lookahead }),
    }));
  }

  /** @param {Call} call */
  async _offer(call) {
    const { pc, ticket } = call;
    const current = () => this._call === call && !call.over;
    /** @param {LivefaceError} error */
    const lost = (error) => current() && this._lost(error);

    pc.ontrack = ({ track, receiver }) => {
      // The engine paces sound and picture already: any buffer here is only delay.
      if ("jitterBufferTarget" in receiver) receiver.jitterBufferTarget = 0;
      if (!current()) return;
      this.stream.addTrack(track);
      if (track.kind === "video") track.addEventListener("unmute", () => current() && this._flowing(call), { once: true });
    };
    pc.oniceconnectionstatechange = () => {
      if (!current()) return;
      this._ice = pc.iceConnectionState;
      this._findings();
    };
    pc.onconnectionstatechange = () => {
      if (pc.connectionState === "failed") lost(this._noPath(call));
      else if (pc.connectionState === "disconnected")
        setTimeout(() => pc.connectionState === "disconnected" && lost(new LivefaceError("lost", "The connection was lost.")), PATIENCE.flicker);
    };

    call.voice = pc.addTransceiver(this.microphone?.getAudioTracks()[0] ?? "audio", {
      direction: call.viewer ? "recvonly" : "sendrecv", streams: this.microphone && !call.viewer ? [this.microphone] : [],
    });
    pc.addTransceiver("video", { direction: "recvonly" });
    if (call.viewer) call.voice = null;
    else {
      const channel = (call.channel = pc.createDataChannel("avatar-events"));
      channel.onmessage = ({ data }) => current() && this._event(data);
      channel.onopen = () => this._landmarks && this.landmarks(true);
      channel.onclose = () => lost(new LivefaceError("lost", "The server ended the connection."));
    }

    await pc.setLocalDescription();
    // The engine learns this page's addresses from its connectivity checks; a short wait serves servers that do not.
    if (pc.iceGatheringState !== "complete")
      await new Promise((resolve) => {
        setTimeout(resolve, PATIENCE.gather);
        pc.addEventListener("icegatheringstatechange", () => pc.iceGatheringState === "complete" && resolve(undefined));
      });
    const url = call.viewer ? ticket.whep_url : ticket.whip_url;
    if (!url) throw new LivefaceError("bad_answer", "The server named no address for the offer.", { permanent: true });
    const response = await this._request("POST", url, pc.localDescription?.sdp, "application/sdp", ticket.token || this.token);
    const location = response.headers.get("Location");
    call.location = location ? new URL(location, this._absolute(url)).href : "";
    if (call.over) {
      // Ended while the server was answering: now there is a connection to end.
      call.over = false;
      call.end(this.server);
      return;
    }
    await pc.setRemoteDescription({ type: "answer", sdp: await response.text() });
    setTimeout(() => this.state === "connecting" && lost(this._noPath(call)), PATIENCE.path);
  }

  /** @param {Call} call */
  _noPath(call) {
    return this.state === "live" ? new LivefaceError("lost", "The connection was lost.")
      : new LivefaceError("no_path", call.pc.connectionState === "connected" ? "Connected, but no picture came." : "Sound and picture found no way to this page.");
  }

  /** The first packets of the picture are here. @param {Call} call */
  _flowing(call) {
    this._attempt = 0;
    this.trouble = null;
    call.fed = performance.now();
    clearInterval(this._pulse);
    this._pulse = setInterval(() => this._measure(call), 1000);
    this._is("live");
    this._settle(null);
    this._measure(call);
  }

  /** @param {Call} call */
  async _measure(call) {
    const report = await call.pc.getStats().catch(() => null);
    if (!report || this._call !== call) return;
    /** @type {Map<string, any>} */
    const now = new Map();
    report.forEach((/** @type {any} */ stat) => now.set(stat.id, stat));
    const first = call.before.size === 0;
    this.numbers = digest(now, call.before);
    call.before = now;
    if (this.numbers.bytes > call.bytes) {
      call.bytes = this.numbers.bytes;
      call.fed = performance.now();
    } else if (performance.now() - call.fed > PATIENCE.silence)
      return this._lost(new LivefaceError("media_stopped", "Sound and picture stopped arriving."));
    if (!first) this._emit("numbers", this.numbers);
    this._findings();
  }

  /** @param {string} text */
  _event(text) {
    /** @type {ServerEvent} */
    let event;
    try {
      event = JSON.parse(text);
    } catch {
      return; // the wire's rule: what is not understood is ignored
    }
    if (typeof event?.type !== "string") return;
    if (typeof event.epoch === "number") this.epoch = Math.max(this.epoch, event.epoch);
    this._emit(event.type, event);
    this._emit("event", event);
    if (event.type === "error" && event.fatal)
      this._lost(new LivefaceError(event.code ?? "server_error", event.message ?? "The server ended the session.", { retryAfterMs: event.retry_after_ms }));
  }

  /** @param {LivefaceError} error */
  _lost(error) {
    this._drop();
    this.trouble = error;
    this._server = error.code === "unreachable" ? "unreachable" : error.status ? "refused" : this._server;
    if (error.code === "no_slot" || error.code === "draining" || error.code === "too_many") this._server = "ok";
    if (error.permanent || !this.reconnect) {
      this._is("failed");
      this._settle(error);
      return;
    }
    // A network that lets nothing through will not have changed in a second; the words about it can be read meanwhile.
    const retryInMs = backoff(this._attempt++, error.retryAfterMs || (error.code === "no_path" ? PATIENCE.noPath : 0));
    this._timer = setTimeout(() => this._dial(), retryInMs);
    this._is("waiting", { retryInMs });
  }
}
