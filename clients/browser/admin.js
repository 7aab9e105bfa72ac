/** The presenter wall, at /admin: who is here, what each stage takes, what goes wrong. Two GETs every two seconds. */

import { Liveface } from "./liveface.js";
import "./page.js"; // the colours that were chosen on the other pages

/** @type {(id: string) => any} */
const $ = (id) => document.getElementById(id);
const EVERY_MS = 2000;
let key = new URLSearchParams(location.hash.slice(1)).get("token") ?? sessionStorage.getItem("liveface.operator") ?? "";
if (location.hash) history.replaceState(null, "", location.pathname);
/** @type {Map<string, number>} the metrics of the reading before, to tell a rate from a total */
let before = new Map();
let beforeAt = 0;
/** @type {Map<string, { tile: HTMLElement, face: Liveface|null }>} */
const tiles = new Map();
/** @type {Map<string, any>} */
let avatars = new Map();

/** @param {string} path @returns {Promise<Response>} */
const get = (path) => fetch(path, { headers: key ? { Authorization: `Bearer ${key}` } : {}, cache: "no-store", signal: AbortSignal.timeout(8000) });

/** Prometheus text to `name{labels}` → value. Pure. @param {string} text @returns {Map<string, number>} */
export function readMetrics(text) {
  const values = new Map();
  for (const line of text.split("\n")) {
    const cut = line.lastIndexOf(" ");
    if (cut > 0 && !line.startsWith("#")) values.set(line.slice(0, cut), Number(line.slice(cut + 1)));
  }
  return values;
}
/** @param {string} series @param {string} label @returns {string} */
export const labelOf = (series, label) => new RegExp(`[{,]${label}="((?:[^"\\\\]|\\\\.)*)"`).exec(series)?.[1] ?? "";

/** @type {(value: number|null|undefined, digits?: number) => string} */
const fixed = (value, digits = 0) => (value === null || value === undefined || !Number.isFinite(value) ? "–" : value.toFixed(digits));
/** @type {(seconds: number) => string} */
const span = (seconds) => (seconds < 90 ? `${fixed(seconds)} s` : seconds < 5400 ? `${fixed(seconds / 60)} min` : `${fixed(seconds / 3600, 1)} h`);

/** @param {string} verdict @param {string} words */
function say(verdict, words) {
  $("status").dataset.verdict = verdict;
  if ($("status-words").textContent !== words) $("status-words").textContent = words;
}

/** @param {string} why */
function askForKey(why) {
  $("gate").hidden = false;
  $("wall").hidden = true;
  $("leave").hidden = true;
  $("gate-note").textContent = why;
  say("off", "Locked");
  if (document.activeElement === document.body) $("key").focus();
}

async function look() {
  try {
    const [sessions, metrics] = await Promise.all([get("/v1/sessions"), get("/metrics")]);
    if (sessions.status === 401 || sessions.status === 403) {
      askForKey(key ? "That key does not open this wall." : "");
      return;
    }
    if (!sessions.ok) throw new Error(String(sessions.status));
    sessionStorage.setItem("liveface.operator", key);
    if (!avatars.size) {
      const found = await get("/v1/avatars");
      const listed = found.ok ? (await found.json()).avatars ?? [] : [];
      avatars = new Map(listed.map((/** @type {any} */ a) => [a.id, a]));
    }
    show(await sessions.json(), metrics.ok ? readMetrics(await metrics.text()) : new Map());
    setTimeout(look, EVERY_MS);
  } catch {
    say("fail", "The server does not answer");
    setTimeout(look, EVERY_MS);
  }
}

/** @param {any} house @param {Map<string, number>} now */
function show(house, now) {
  $("gate").hidden = true;
  $("wall").hidden = false;
  $("leave").hidden = !key;
  const list = house.sessions ?? [];
  /** @type {(start: string) => [string, number][]} */
  const series = (start) => [...now].filter(([name]) => name.startsWith(start));
  /** @type {(name: string) => number} */
  const grown = (name) => (now.get(name) ?? 0) - (before.get(name) ?? 0);
  const slots = Object.fromEntries(series("avatar_session_slots{").map(([name, value]) => [labelOf(name, "state"), value]));
  const free = house.free_slots ?? slots.free;
  const total = house.slots ?? Object.values(slots).reduce((a, b) => a + b, 0);
  const seconds = (performance.now() - beforeAt) / 1000;
  const latencies = list.map(latencyMs).filter(Number.isFinite);
  say(house.draining ? "warn" : "ok", house.draining ? "Draining: nobody new comes in" : "Open");
  const misses = before.size ? grown("avatar_deadline_misses_total") : 0;
  const lag = [grown("avatar_event_loop_lag_seconds_sum"), grown("avatar_event_loop_lag_seconds_count")];
  figures($("house"), [
    ["Sessions", fixed(list.length), ""],
    ["Free seats", fixed(free), Number.isFinite(total) ? `of ${total}` : ""],
    ["Latency, worst p50", latencies.length ? fixed(Math.max(...latencies)) : "–", "ms"],
    ["Missed deadlines", fixed(misses), "last seconds"],
    ["Event loop lag", lag[1] ? fixed((1000 * lag[0]) / lag[1], 1) : "–", "ms"],
    ["Model restarts", fixed(series("avatar_worker_restarts").reduce((a, [, v]) => a + v, 0)), ""],
  ]);
  showSessions(list);
  rows($("stages"), series("avatar_stage_duration_seconds_count{").filter(([name]) => grown(name) > 0).map(([name]) => {
    const count = grown(name);
    return [labelOf(name, "stage"), `${fixed((1000 * grown(name.replace("_count{", "_sum{"))) / count, 2)} ms`, fixed(count / seconds, 1)];
  }), "No picture was made in the last seconds.");
  const faults = [
    ...series("avatar_sessions_total{").filter(([n]) => !/^(ok|closed|left|ended)/.test(labelOf(n, "outcome"))).map(([n, v]) => /** @type {const} */ ([`Session ended: ${labelOf(n, "outcome")}`, n, v])),
    ...series("avatar_refused_total{").map(([n, v]) => /** @type {const} */ ([`Refused: ${labelOf(n, "reason")}`, n, v])),
    ...series("avatar_http_requests_total{").filter(([n]) => labelOf(n, "status").startsWith("5")).map(([n, v]) => /** @type {const} */ ([`${labelOf(n, "method")} answered ${labelOf(n, "status")}`, n, v])),
    ...series("avatar_frames_total{").filter(([n]) => /late|dropped|lost/.test(labelOf(n, "result"))).map(([n, v]) => /** @type {const} */ ([`Pictures ${labelOf(n, "result")}`, n, v])),
  ].filter(([, , v]) => v > 0);
  rows($("faults"), faults.map(([what, name, value]) => [what, before.size ? fixed(grown(name)) : "–", fixed(value)]), "Nothing has gone wrong since the start.");
  before = now;
  beforeAt = performance.now();
}

/** @param {any} s @returns {number} */
const latencyMs = (s) => s.latency_ms?.p50 ?? (typeof s.latency_p50 === "number" ? s.latency_p50 * 1000 : NaN);

/** @param {HTMLElement} list @param {[string, string, string][]} entries */
function figures(list, entries) {
  list.replaceChildren(...entries.map(([name, value, unit]) => {
    const tile = document.createElement("div");
    tile.className = list.id === "house" ? "tile" : "";
    const term = Object.assign(document.createElement("dt"), { textContent: name });
    const text = Object.assign(document.createElement("dd"), { textContent: value });
    if (unit) text.append(" ", Object.assign(document.createElement("small"), { textContent: unit }));
    tile.append(term, text);
    return tile;
  }));
}

/** @param {HTMLElement} body @param {string[][]} lines @param {string} none */
function rows(body, lines, none) {
  body.replaceChildren(...(lines.length ? lines : [[none]]).map((cells) => {
    const row = document.createElement("tr");
    for (const text of cells) {
      const cell = Object.assign(document.createElement("td"), { textContent: text });
      if (cells.length === 1) cell.colSpan = 3;
      row.append(cell);
    }
    return row;
  }));
}

/** Tiles are kept from reading to reading, so that what is being watched goes on. @param {any[]} list */
function showSessions(list) {
  $("empty").hidden = list.length > 0;
  const here = new Set(list.map((s) => s.session_id ?? s.id));
  for (const [id, { tile, face }] of tiles)
    if (!here.has(id)) {
      face?.close();
      tile.remove();
      tiles.delete(id);
    }
  for (const session of list) {
    const id = session.session_id ?? session.id;
    if (!tiles.has(id)) tiles.set(id, { tile: newTile(id, session), face: null });
    const { tile } = /** @type {any} */ (tiles.get(id));
    figures(tile.querySelector("dl"), [
      ["Here for", span(session.seconds ?? 0), ""],
      ["Pictures", `${fixed(session.fps)} /s`, ""],
      ["Latency", `${fixed(latencyMs(session))} ms`, ""],
      ["Late", fixed(session.repeated ?? session.late ?? 0), ""],
      ["Waiting", `${fixed(session.queued_seconds ?? 0, 1)} s`, ""],
      ["Connections", fixed(session.viewers ?? 0), ""], // who speaks, and all who look on
    ]);
  }
}

/** @param {string} id @param {any} session */
function newTile(id, session) {
  const avatar = avatars.get(session.avatar_id) ?? {};
  const tile = document.createElement("article");
  tile.className = "seat";
  tile.innerHTML = `<div class="window"><img alt=""><button class="ghost" type="button">Watch</button></div><div class="body"><h3></h3><p class="note"></p><dl class="figures"></dl></div>`;
  /** @type {any} */
  const portrait = tile.querySelector("img");
  if (avatar.portrait_url) portrait.src = avatar.portrait_url;
  else portrait.hidden = true;
  /** @type {any} */ (tile.querySelector("h3")).textContent = avatar.title ?? session.avatar_id ?? "session";
  /** @type {any} */ (tile.querySelector(".note")).textContent = `${session.transport ?? ""} · ${id.slice(0, 12)}`;
  /** @type {any} */
  const button = tile.querySelector("button");
  button.setAttribute("aria-label", `Watch ${avatar.title ?? session.avatar_id ?? "session"} ${id.slice(0, 6)}`);
  button.onclick = () => {
    const entry = tiles.get(id);
    if (!entry || entry.face) return;
    const face = (entry.face = new Liveface({ watch: id, token: session.view_token ?? key }));
    const video = Object.assign(document.createElement("video"), { muted: true, playsInline: true, autoplay: true });
    face.addEventListener("state", () => {
      if (face.state === "live") {
        video.srcObject = face.stream;
        tile.querySelector(".window")?.prepend(video);
        portrait.hidden = button.hidden = true;
      } else if (face.state === "failed") {
        button.hidden = false;
        button.textContent = "Cannot watch";
      }
    });
    button.textContent = "Joining…";
    face.connect().catch(() => undefined);
  };
  $("sessions").append(tile);
  return tile;
}

$("gate").onsubmit = (/** @type {SubmitEvent} */ event) => {
  event.preventDefault();
  key = $("key").value.trim();
  look();
};
$("leave").onclick = () => {
  sessionStorage.removeItem("liveface.operator");
  location.reload();
};
look();
