/** The demo page. Everything it does to the engine goes through `liveface.js`; everything else here is the page. */

import { Liveface, LivefaceError, Loudness } from "./liveface.js";
import { memory, paintRoom, play, setTheme, tab, theme, THEMES } from "./page.js";

/** @type {(id: string) => any} */
const $ = (id) => document.getElementById(id);
const wishes = new URLSearchParams(location.search);
const secrets = new URLSearchParams(location.hash.slice(1)); // a fragment never reaches a server's log

/** Whether this tab was talking when it was reloaded, and how. */
const talking = { get: () => tab.get("talking"), set: (/** @type {string} */ value) => tab.set("talking", value) };

const face = new Liveface({
  server: wishes.get("server") ?? undefined,
  token: secrets.get("token") ?? tab.get("token"),
  avatar: wishes.get("avatar") ?? memory.get("avatar"),
  lookahead: wishes.has("lookahead") ? Number(wishes.get("lookahead")) : undefined,
  microphone: wishes.get("processing") === "off"
    ? { echoCancellation: false, noiseSuppression: false, autoGainControl: false } : undefined,
});
const video = $("video");

/** @type {import("./liveface.js").Avatar[]} */
let avatars = [];
/** @type {AudioContext|null} */
let context = null;
/** @type {Loudness|null} */
let loudness = null;
/** @type {import("./meter.js").Meter|null} */
let meter = null;
/** The stream that `loudness` listens to. @type {MediaStream|null} */
let metered = null;
let probe = false;
let retryAt = 0;
let draining = false;
/** @type {any[]} server `stats`, a minute of them */
const minute = [];
Object.assign(window, { liveface: face, livefaceMeter: () => meter, livefaceEstimate: estimate }); // for the console, and for tests

// ---- words

const titleOf = () => avatars.find((a) => a.id === face.avatar)?.title ?? avatars.find((a) => a.id === face.avatar)?.id ?? "the presenter";

/** @type {(ms: number) => string} */
const inSeconds = (ms) => (ms > 1500 ? `in ${Math.round(ms / 1000)} s` : "now");

/** What went wrong: a few words for the top, a title, and what helps. @param {LivefaceError} trouble @returns {[string, string, string]} */
const wordsOf = (trouble) => /** @type {Record<string, [string, string, string]>} */ ({
  no_slot: ["All seats are taken", "All seats are taken.", "Someone has to leave first."],
  too_many: ["Too many attempts", "A little too fast.", "There were too many attempts from here."],
  draining: ["Server restarting", "The server is restarting.", ""],
  unreachable: ["Server does not answer", "The server does not answer.", "Is it running, and is this device online?"],
  no_path: ["No path for sound and picture", "Sound and picture find no way through.", "The server answers, but UDP seems to be blocked on this network. Another network, or no VPN, may help."],
  lost: ["Reconnecting…", "The connection was lost.", ""],
  media_stopped: ["Reconnecting…", "The picture stopped arriving.", ""],
  unauthorised: ["Access key needed", "This server asks for a key.", "Enter the access key you were given."],
  forbidden: ["Not allowed", "This presenter may not be used.", trouble.message],
  not_found: ["No such presenter", "This presenter is not here.", "Choose another one from the gallery."],
})[trouble.code] ?? ["Something went wrong", "That did not work.", `${trouble.message}.`];

/**
 * What the page says in each state: a verdict, a few words for the top, and a curtain over the picture (null: none).
 * @param {import("./liveface.js").State} state @param {LivefaceError|null} trouble @param {number} waitMs
 * @returns {{ verdict: string, words: string, curtain: null | { kicker: string, title: string, words: string, action?: string } }}
 */
function wordsFor(state, trouble, waitMs) {
  switch (state) {
    case "live":
      return { verdict: "ok", words: "Live", curtain: null };
    case "closed":
      return { verdict: "off", words: "Ended", curtain: { kicker: "Ended", title: "That was it. Your seat is free again.", words: "Your microphone is off.", action: "Start again" } };
    case "idle":
      return { verdict: "off", words: "Ready", curtain: { kicker: titleOf(), title: "Speak, and the face speaks.", words: "Your voice goes to this server, and to no one else.", action: "Start talking" } };
    default: {
      if (trouble) {
        // While it tries again, what went wrong stays readable.
        const [short, title, words] = wordsOf(trouble);
        const again = { waiting: `Trying again ${inSeconds(waitMs)}.`, asking: "Trying again now.", connecting: "Trying again now.", failed: "" }[state];
        return { verdict: state === "failed" ? "fail" : "warn", words: short, curtain: {
          kicker: state === "failed" ? "Stopped" : state === "waiting" ? "Waiting" : "Trying again", title, words: `${words} ${again}`.trim(),
          action: state === "waiting" || state === "failed" ? "Try now" : undefined } };
      }
      const asking = state === "asking";
      return { verdict: "busy", words: asking ? "Asking for a seat…" : "Finding a path…", curtain: { kicker: "Connecting",
        title: asking ? "Asking for a seat…" : "Finding a path for sound and picture…", words: asking ? "" : "This takes a second or two." } };
    }
  }
}

function paintState() {
  const { verdict, words, curtain } = wordsFor(face.state, face.trouble, Math.max(0, retryAt - performance.now()));
  const microphoneTrouble = face.state === "live" && face.microphoneState.startsWith("microphone_");
  const latency = latencyNow();
  $("status").dataset.verdict = face.state === "live" && (microphoneTrouble || draining) ? "warn" : verdict;
  const line = face.state !== "live" ? words : draining ? "Live; the server restarts soon" : microphoneTrouble ? "Live, without your microphone" : "Live";
  if ($("status-words").textContent !== line) $("status-words").textContent = line;
  $("status").title = latency ? `${Math.round(latency.ms)} ms mouth to glass, ${latency.how}` : "";
  const live = face.state === "live";
  $("stage").toggleAttribute("data-live", live);
  $("curtain").hidden = curtain === null;
  if (curtain) {
    $("curtain").dataset.verdict = verdict;
    for (const [id, text] of [["curtain-kicker", curtain.kicker], ["curtain-title", curtain.title], ["curtain-words", curtain.words]])
      if ($(id).textContent !== text) $(id).textContent = text;
    $("curtain-actions").hidden = !curtain.action || face.trouble?.code === "unauthorised";
    $("start").querySelector("span").textContent = curtain.action ?? "";
    $("start").querySelector("svg").toggleAttribute("hidden", curtain.action === "Try now");
    $("start-quiet").hidden = face.state !== "idle";
    $("key").hidden = face.trouble?.code !== "unauthorised";
  }
  for (const id of ["interrupt", "file"]) $(id).disabled = !live;
  $("end").disabled = face.state === "idle" || face.state === "closed";
  $("say-go").disabled = !live || $("voice").disabled;
  $("points").hidden = !live;
  $("numbers").toggleAttribute("data-empty", !live);
  if (!live) $("speaking").hidden = true;
  paintMicrophone();
}

function paintMicrophone() {
  const on = face.microphone !== null;
  const free = $("hands-free").checked;
  const open = on && face.listening;
  const hold = $("hold");
  hold.disabled = !on && !["live", "connecting"].includes(face.state);
  hold.dataset.open = String(open || !on);
  hold.setAttribute("aria-pressed", String(open));
  $("hold-icon").setAttribute("href", open ? "#i-mic" : "#i-mic-off");
  $("hold-name").textContent = !on ? "Turn the microphone on" : free ? (open ? "Mute" : "Unmute") : "Hold to talk";
  const hints = /** @type {Record<string, string>} */ ({
    off: face.state === "live" ? "The microphone is off. Press to turn it on" : free ? "Just talk, once it is live" : "Hold the button, or the space bar, to talk",
    asking: "Answer the browser’s question at the top of the window",
    microphone_denied: "The microphone is blocked. Allow it at the icon left of the address, then press here",
    microphone_missing: "No microphone was found. Plug one in, then press here",
    microphone_busy: "Another program holds the microphone. Close it, then press here",
    microphone_insecure: "A microphone needs https or localhost. Typing works",
    microphone_ended: "The microphone was unplugged. Plug it in, then press here",
    on: free ? "Just talk. Press to mute" : "Talking… let go to stop",
    muted: free ? "Muted. Press to be heard again" : "Hold the button, or the space bar, to talk",
  });
  const hint = hints[face.microphoneState] ?? "The microphone could not be opened. Choose another, then press here";
  if ($("hold-hint").textContent !== hint) $("hold-hint").textContent = hint;
}

/** @param {import("./liveface.js").Finding[]} findings */
function paintDoctor(findings) {
  const list = $("findings");
  const key = JSON.stringify(findings);
  if (list.dataset.key === key) return;
  list.dataset.key = key;
  list.replaceChildren(...findings.map(({ title, verdict, words, advice }) => {
    const row = document.createElement("li");
    row.dataset.verdict = verdict;
    row.innerHTML = `<svg aria-hidden="true"><use href="#i-${verdict}"/></svg><b></b><p></p>`;
    /** @type {any} */ (row.querySelector("b")).textContent = title;
    /** @type {any} */ (row.querySelector("p")).textContent = words;
    if (advice) row.append(Object.assign(document.createElement("p"), { className: "advice", textContent: advice }));
    return row;
  }));
  // The doctor comes when called, and by itself when something is wrong.
  if (findings.some((f) => f.verdict === "fail" || (f.verdict === "warn" && face.state !== "live"))) showDoctor(true);
  else if (!list.dataset.called) showDoctor(false);
}

/** @param {boolean} yes */
function showDoctor(yes) {
  $("doctor").hidden = !yes;
  $("status").setAttribute("aria-expanded", String(yes));
}

// ---- starting and ending

/** @param {boolean} withMicrophone */
async function start(withMicrophone) {
  talking.set(withMicrophone ? "microphone" : "quiet");
  if (withMicrophone && !face.microphone) openMicrophone();
  try {
    await face.connect();
  } catch (error) {
    if (!(error instanceof LivefaceError)) throw error; // its words are on the page already
  }
}

async function openMicrophone(device = $("microphone").value || memory.get("microphone")) {
  try {
    await face.sendMicrophone(device);
  } catch (error) {
    if (!(error instanceof LivefaceError)) throw error;
    // A remembered device may be gone: any other is better than none.
    if (error.code === "microphone_missing" && device) await face.sendMicrophone().catch(() => undefined);
  }
  await listMicrophones();
}

async function listMicrophones() {
  const devices = (await navigator.mediaDevices?.enumerateDevices?.().catch(() => [])) ?? [];
  const inputs = devices.filter((d) => d.kind === "audioinput" && d.deviceId);
  const current = face.microphone?.getAudioTracks()[0]?.getSettings().deviceId ?? "";
  $("microphone").replaceChildren(...(inputs.length ? inputs : [{ deviceId: "", label: "" }]).map((d) => new Option(d.label || "Default microphone", d.deviceId)));
  if (current) $("microphone").value = current;
}

const playIt = async () => face.heard(await play(video, face.stream, $("unmute")));

face.addEventListener("state", (/** @type {any} */ { detail }) => {
  retryAt = performance.now() + (detail.retryInMs ?? 0);
  draining = false;
  if (detail.state === "live") {
    playIt();
    minute.length = 0;
    // The portrait may be another cut of the presenter than the picture.
    setTimeout(() => face.state === "live" && video.videoWidth && paintRoom($("ambient"), video, video.videoWidth, video.videoHeight), 600);
    const { disclosure } = face.session ?? {};
    $("badge-words").textContent = disclosure?.label && disclosure.label.length > 3 ? disclosure.label : "AI-generated";
    const link = $("watch-link");
    link.hidden = false;
    link.href = new URL(face.session?.watch_url ?? `watch/${face.session?.session_id}`, `${face.server}/`).href;
    startMeter();
  } else {
    $("watch-link").hidden = true;
    meter?.stop();
    meter = null;
    drawOverlay([]);
  }
  paintState();
});
face.addEventListener("finding", (/** @type {any} */ { detail }) => paintDoctor(detail));
face.addEventListener("microphone", (/** @type {any} */ { detail }) => {
  if (detail.stream !== metered) {
    loudness?.stop();
    loudness = null;
    metered = detail.stream;
    if (metered) {
      context ??= new AudioContext();
      context.resume();
      loudness = new Loudness(metered, context);
    }
    startMeter();
  }
  paintState();
});
face.addEventListener("speech.started", () => ($("speaking").hidden = false));
face.addEventListener("speech.stopped", () => ($("speaking").hidden = true));
face.addEventListener("cleared", () => ($("speaking").hidden = true));
face.addEventListener("session.draining", () => {
  draining = true;
  paintState();
});

$("start").onclick = () => {
  if (face.state === "waiting" || face.state === "failed") {
    if (talking.get() !== "quiet" && !face.microphone) openMicrophone();
    face.redial();
  } else start(true);
};
$("start-quiet").onclick = () => start(false);
$("key").onsubmit = (/** @type {SubmitEvent} */ event) => {
  event.preventDefault();
  face.token = $("key-field").value.trim();
  tab.set("token", face.token);
  furnish();
  face.redial();
};
$("unmute").onclick = playIt;
$("end").onclick = () => {
  talking.set("");
  face.close();
};

// ---- talking

const hold = $("hold");
/** @param {boolean} open */
function talk(open) {
  face.listening = open;
  paintMicrophone();
}
hold.onpointerdown = (/** @type {PointerEvent} */ event) => {
  if (!face.microphone || $("hands-free").checked) return;
  hold.setPointerCapture(event.pointerId);
  talk(true);
};
hold.onpointerup = hold.onpointercancel = () => face.microphone && !$("hands-free").checked && talk(false);
hold.oncontextmenu = (/** @type {Event} */ event) => event.preventDefault();
hold.onclick = (/** @type {MouseEvent} */ event) => {
  if (!face.microphone) openMicrophone();
  // detail 0: Enter, or a screen reader, which can press but not hold
  else if ($("hands-free").checked || event.detail === 0) talk(!face.listening);
};
$("hands-free").onchange = () => {
  memory.set("hands-free", $("hands-free").checked ? "yes" : "no");
  talk($("hands-free").checked);
};
$("microphone").onchange = () => {
  memory.set("microphone", $("microphone").value);
  openMicrophone();
};
navigator.mediaDevices?.addEventListener?.("devicechange", listMicrophones);

/** Space talks unless the key means something where the focus is. @param {KeyboardEvent} event */
const talkKey = (event) => event.code === "Space" && face.microphone && !$("hands-free").checked &&
  (event.target === hold || !(/** @type {Element} */ (event.target).closest?.("input, textarea, select, button, a, [contenteditable]")));
addEventListener("keydown", (event) => {
  if (event.key === "Escape" && face.state === "live") $("interrupt").click();
  if (talkKey(event)) {
    event.preventDefault();
    if (!event.repeat) talk(true);
  }
});
addEventListener("keyup", (event) => {
  if (talkKey(event)) {
    event.preventDefault();
    talk(false);
  }
});
addEventListener("blur", () => face.microphone && !$("hands-free").checked && talk(false));

$("interrupt").onclick = async () => {
  await attempt(() => face.interrupt());
  $("speaking").hidden = true;
};

// ---- typing and files

/** Runs something a person asked for, and says in words when it did not work. @param {() => Promise<any>} action */
async function attempt(action) {
  note("");
  try {
    return await action();
  } catch (error) {
    if (!(error instanceof LivefaceError)) throw error;
    note(`That did not work: ${error.message.replace(/\.$/, "")}.`);
    return null;
  }
}
/** @param {string} text */
const note = (text) => ($("say-note").textContent = text);

$("say").onsubmit = async (/** @type {SubmitEvent} */ event) => {
  event.preventDefault();
  const text = $("text").value.trim();
  if (!text || $("say-go").disabled) return;
  if (await attempt(() => face.say(text, $("voice").value))) $("text").value = "";
};
$("text").onkeydown = (/** @type {KeyboardEvent} */ event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $("say").requestSubmit();
  }
};
$("voice").onchange = () => memory.set("voice", $("voice").value);

/** @param {File|undefined} file */
async function speakFile(file) {
  if (!file) return;
  if (file.size > 64 << 20) return note("That file is larger than 64 MB. A shorter one, please.");
  if (face.state !== "live") return note("Start first, then drop the file again.");
  if (await attempt(() => face.sendFile(file))) note(`Speaking ${file.name}`);
}
$("file").onchange = async () => {
  await speakFile($("file").files[0]);
  $("file").value = "";
};
let dragDepth = 0;
addEventListener("dragenter", (event) => {
  if (![...(event.dataTransfer?.types ?? [])].includes("Files")) return;
  dragDepth += 1;
  $("drop").hidden = false;
});
addEventListener("dragleave", () => {
  dragDepth = Math.max(0, dragDepth - 1);
  if (!dragDepth) $("drop").hidden = true;
});
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  dragDepth = 0;
  $("drop").hidden = true;
  speakFile(event.dataTransfer?.files[0]);
});

// ---- presenters and voices

/** What the server has, into the page. Repeats by itself until the server answers. */
async function furnish() {
  try {
    const [found, voices, version] = await Promise.all([face.avatars(), face.voices(), face.version()]);
    avatars = found;
    probe = Boolean(version.probe);
    if (!avatars.some((a) => a.id === face.avatar)) face.avatar = avatars[0]?.id ?? "";
    $("about").textContent = [`Liveface ${version.version}`, version.backend, version.model].filter(Boolean).join(" · ");
    paintGallery();
    paintVoices(voices);
  } catch (error) {
    if (!(error instanceof LivefaceError)) throw error;
    const words = error.code === "unreachable" ? "The server does not answer yet." : error.message;
    $("gallery-note").textContent = error.code === "unauthorised" ? "" : words;
    $("gallery-note").hidden = false;
    if (!error.permanent) setTimeout(furnish, 3000);
  }
  paintState();
}

function paintGallery() {
  $("gallery-note").hidden = avatars.length > 0;
  $("gallery-note").textContent = "No presenter is installed. “liveface avatars” lists where they are looked for.";
  $("gallery").replaceChildren(...avatars.map((avatar) => {
    const label = document.createElement("label");
    const radio = Object.assign(document.createElement("input"), { type: "radio", name: "avatar", value: avatar.id, checked: avatar.id === face.avatar });
    const portrait = Object.assign(new Image(), { className: "face", alt: "", width: 96, height: 96, loading: "lazy" });
    if (avatar.portrait_url) portrait.src = new URL(avatar.portrait_url, `${face.server}/`).href;
    const name = Object.assign(document.createElement("span"), { textContent: avatar.title || avatar.id });
    radio.onchange = () => choose(avatar.id);
    label.append(radio, portrait, name);
    return label;
  }));
  paintPoster();
}

/** @param {string} id */
function choose(id) {
  face.avatar = id;
  memory.set("avatar", id);
  paintPoster();
  if (["live", "connecting", "asking", "waiting", "failed"].includes(face.state)) {
    // A presenter is a seat: a new one is a new session. The microphone stays open meanwhile.
    face.redial();
  } else paintState();
}

function paintPoster() {
  const avatar = avatars.find((a) => a.id === face.avatar);
  const poster = $("poster");
  poster.hidden = !avatar?.portrait_url;
  if (!avatar?.portrait_url) return;
  poster.src = new URL(avatar.portrait_url, `${face.server}/`).href;
  poster.onload = () => paintRoom($("ambient"), poster, poster.naturalWidth, poster.naturalHeight);
  video.setAttribute("aria-label", `${titleOf()}, live`);
}

new ResizeObserver(() => {
  if (face.state === "live" && video.videoWidth) paintRoom($("ambient"), video, video.videoWidth, video.videoHeight);
  else if ($("poster").naturalWidth) paintRoom($("ambient"), $("poster"), $("poster").naturalWidth, $("poster").naturalHeight);
}).observe($("stage"));

/** @param {{ voices: import("./liveface.js").Voice[], advice?: string }} found */
function paintVoices({ voices, advice }) {
  const select = $("voice");
  select.disabled = voices.length === 0;
  if (!voices.length) {
    note(advice || "No voice is installed on the server: typing is off. Talking and audio files work.");
    $("text").disabled = true;
    return;
  }
  $("text").disabled = false;
  select.replaceChildren(...voices.map((v) => new Option([v.name || v.id, v.language].filter(Boolean).join(" · "), v.id)));
  if (voices.some((v) => v.id === memory.get("voice"))) select.value = memory.get("voice");
}

// ---- numbers

/** @type {(value: number|null|undefined, digits?: number) => string} */
const fixed = (value, digits = 0) => (value === null || value === undefined || Number.isNaN(value) ? "–" : value.toFixed(digits).replace("-", "−"));

/** Mouth to glass: read off the picture when the server stamps it, else added up from what is known. */
function latencyNow() {
  const measured = meter?.summary();
  if (measured && measured.count > 25) return { ms: measured.p50, how: "measured" };
  const ms = estimate();
  return ms === null ? null : { ms, how: "estimated" };
}

/** @returns {number|null} */
function estimate() {
  const server = minute.at(-1)?.latency_ms?.p50;
  const { numbers } = face;
  if (face.state !== "live" || !face.microphone || server === undefined || !numbers) return null;
  // 20 ms to fill a packet, 20 ms mean wait for its chunk of 40, 8 ms mean wait for the screen.
  return server + (numbers.roundTripMs ?? 0) + (numbers.videoBufferMs ?? 0) + (numbers.decodeMs ?? 0) + 48;
}

face.addEventListener("numbers", (/** @type {any} */ { detail: n }) => {
  const measured = meter?.summary();
  const offset = measured?.avOffset ?? n.avOffsetMs;
  $("n-offset").textContent = offset === null || offset === undefined ? "–" : `${offset > 0 ? "+" : ""}${fixed(offset)} ms`;
  $("n-fps").textContent = `${fixed(n.fps)} /s`;
  $("n-rate").textContent = n.kbps === null ? "–" : n.kbps > 999 ? `${fixed(n.kbps / 1000, 1)} Mb/s` : `${fixed(n.kbps)} kb/s`;
  $("n-loss").textContent = `${fixed(n.lossPercent, 1)} %`;
  $("n-trip").textContent = `${fixed(n.roundTripMs)} ms`;
  $("n-freezes").textContent = fixed(n.freezes);
  const latency = latencyNow();
  $("n-latency").textContent = latency ? `${latency.how === "estimated" ? "≈" : ""}${fixed(latency.ms)}` : "–";
  $("n-latency-how").textContent = latency?.how ?? "";
  $("n-latency-how").title = latency?.how === "estimated" ? "The server’s own time, the round trip, the browser’s buffer and decoder, and what packets and the screen take" : "";
  paintState();
});

face.addEventListener("stats", (/** @type {any} */ { detail }) => {
  minute.push({ ...detail, stages: detail.stages_ms ?? detail.stages ?? {} });
  if (minute.length > 60) minute.shift();
  drawChart();
});

const hues = [172, 212, 262, 38, 8, 330, 96, 232];
const stageColour = (/** @type {number} */ i) => `hsl(${hues[i % hues.length]} 48% 56%)`;

function drawChart() {
  const canvas = $("chart");
  if ($("numbers").hidden || !canvas.clientWidth) return;
  /** @type {string[]} */
  const names = [...new Set(minute.flatMap((s) => Object.keys(s.stages)))];
  const scale = devicePixelRatio || 1;
  canvas.width = canvas.clientWidth * scale;
  canvas.height = canvas.clientHeight * scale;
  const pen = canvas.getContext("2d");
  const totals = minute.map((s) => names.reduce((sum, name) => sum + (s.stages[name] ?? 0), 0));
  const top = Math.max(10, ...totals) * 1.1;
  const bar = canvas.width / 60;
  minute.forEach((sample, i) => {
    let floor = canvas.height;
    names.forEach((name, k) => {
      const tall = ((sample.stages[name] ?? 0) / top) * canvas.height;
      pen.fillStyle = stageColour(k);
      pen.fillRect((60 - minute.length + i) * bar, floor - tall, Math.max(1, bar - scale), tall);
      floor -= tall;
    });
  });
  pen.fillStyle = getComputedStyle(canvas).color;
  pen.fillRect(0, canvas.height - scale, canvas.width, scale);
  const last = minute.at(-1)?.stages ?? {};
  $("legend").replaceChildren(...names.map((name, k) => {
    const row = document.createElement("li");
    const swatch = document.createElement("i");
    swatch.style.background = stageColour(k);
    row.append(swatch, `${name} ${fixed(last[name], 1)} ms`);
    return row;
  }));
  canvas.setAttribute("aria-label", `Server stage times: ${names.map((name) => `${name} ${fixed(last[name], 1)} milliseconds`).join(", ") || "none yet"}`);
}

async function startMeter() {
  meter?.stop();
  meter = null;
  if (!probe || !face.microphone) return;
  const { Meter } = await import("./meter.js");
  context ??= new AudioContext();
  const started = new Meter({ video, microphone: face.microphone, remote: face.stream, context });
  meter = started;
  await started.start();
}

// ---- landmarks over the picture

/** @type {{ pts_us: number, points: number[][] }[]} */
const recent = [];
/** Picture time minus landmark time, in microseconds. @type {number|null} */
let lead = null;
face.addEventListener("landmarks", (/** @type {any} */ { detail }) => {
  recent.push(detail);
  if (recent.length > 12) recent.shift();
});
$("points").onclick = () => {
  const wanted = $("points").getAttribute("aria-pressed") !== "true";
  $("points").setAttribute("aria-pressed", String(wanted));
  $("overlay").hidden = !wanted;
  face.landmarks(wanted);
  recent.length = 0;
  lead = null;
  if (wanted) video.requestVideoFrameCallback?.(overlayFrame);
};
/** @param {number} _now @param {any} frame */
function overlayFrame(_now, frame) {
  if ($("overlay").hidden) return;
  const newest = recent.at(-1);
  if (newest) {
    // RTP time runs with media time from an unknown start. Points of a picture come before the picture does, so the
    // largest difference ever seen is the true one; the leak follows a new start.
    const shown = (frame.rtpTimestamp ?? 0) / 0.09;
    const apart = shown - newest.pts_us;
    lead = lead === null || Math.abs(apart - lead) > 1e6 ? apart : Math.max(apart, lead - 200);
    const start = lead;
    drawOverlay((recent.find((r) => Math.abs(r.pts_us + start - shown) < 20_000) ?? newest).points);
  }
  video.requestVideoFrameCallback(overlayFrame);
}
/** @param {number[][]} points */
function drawOverlay(points) {
  const canvas = $("overlay");
  const width = video.videoWidth * 2;
  const height = video.videoHeight * 2;
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const pen = canvas.getContext("2d");
  pen.clearRect(0, 0, width, height);
  pen.fillStyle = "#7fe0cf";
  pen.beginPath();
  for (const [x, y] of points) {
    pen.moveTo(x * width + width / 300, y * height);
    pen.arc(x * width, y * height, Math.max(1.6, width / 340), 0, 7);
  }
  pen.fill();
}

// ---- furniture

$("status").onclick = () => {
  const show = $("doctor").hidden;
  if (show) $("findings").dataset.called = "yes";
  else delete $("findings").dataset.called;
  showDoctor(show);
};
/** @param {boolean} yes */
function showNumbers(yes) {
  $("numbers").hidden = !yes;
  $("numbers-toggle").setAttribute("aria-pressed", String(yes));
  memory.set("numbers", yes ? "yes" : "no");
  if (yes) drawChart();
}
$("numbers-toggle").onclick = () => showNumbers($("numbers").hidden);
const nameTheme = () => $("theme").setAttribute("aria-label", `Colours: ${theme() === "system" ? "as the system" : theme()}`);
$("theme").onclick = () => {
  setTheme(THEMES[(THEMES.indexOf(theme()) + 1) % THEMES.length]);
  nameTheme();
  drawChart();
};
$("show-badge").onchange = () => ($("badge").hidden = !$("show-badge").checked);

let shown = 0;
function tick() {
  // 20 times a second is smooth for a level, and a third of the work of every frame.
  const level = loudness && !document.hidden ? loudness.read() : 0;
  const eased = Math.max(level, shown * 0.8);
  if (Math.abs(eased - shown) > 0.004) {
    $("level-bar").style.transform = `scaleX(${eased.toFixed(3)})`;
    hold.style.setProperty("--level", face.listening ? eased.toFixed(2) : "0");
    const percent = Math.round(eased * 20) * 5;
    if ($("level").getAttribute("aria-valuenow") !== String(percent)) $("level").setAttribute("aria-valuenow", String(percent));
    shown = eased;
  }
}
setInterval(tick, 50);
setInterval(() => face.state === "waiting" && paintState(), 1000);

nameTheme();
showNumbers(memory.get("numbers", matchMedia("(min-width: 961px)").matches ? "yes" : "no") === "yes");
$("hands-free").checked = memory.get("hands-free", "yes") === "yes";
face.listening = $("hands-free").checked;
if (secrets.has("token")) {
  tab.set("token", face.token);
  history.replaceState(null, "", location.pathname + location.search);
}
showDoctor(false);
paintState();
listMicrophones();
furnish().then(() => {
  if (talking.get()) start(talking.get() === "microphone");
});
