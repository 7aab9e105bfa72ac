/** The viewer page, at /watch/{session}: looks on over WHEP. The key of the session may follow as #token=… */

import { Liveface } from "./liveface.js";
import { paintRoom, play } from "./page.js";

/** @type {(id: string) => any} */
const $ = (id) => document.getElementById(id);
const session = decodeURIComponent(location.pathname.split("/").pop() ?? "");
const face = new Liveface({ watch: session, token: new URLSearchParams(location.hash.slice(1)).get("token") ?? "" });
const video = $("video");
Object.assign(window, { liveface: face });

const playIt = () => play(video, face.stream, $("unmute"));
$("unmute").onclick = playIt;
const room = () => video.videoWidth && paintRoom($("ambient"), video, video.videoWidth, video.videoHeight);
video.onplaying = () => setTimeout(room, 300);
new ResizeObserver(room).observe($("stage"));

face.addEventListener("state", (/** @type {any} */ { detail }) => {
  const { state, trouble, retryInMs = 0 } = detail;
  const code = trouble?.code ?? "";
  const again = state === "waiting" ? `Trying again in ${Math.max(1, Math.round(retryInMs / 1000))} s.` : "";
  const words = /** @type {Record<string, [string, string]>} */ ({
    not_found: ["This session is over, or never was.", "Ask for a new link."],
    unauthorised: ["This session needs a key.", "It is part of the link you were given."],
    forbidden: ["This key does not open this session.", "Ask for a new link."],
    unreachable: ["The server does not answer.", again],
    no_path: ["Sound and picture find no way through.", `UDP seems to be blocked on this network. ${again}`],
    lost: ["The connection was lost.", again],
    media_stopped: ["The picture stopped arriving.", again],
  })[code] ?? [trouble?.message ?? "", again];
  const live = state === "live";
  $("stage").toggleAttribute("data-live", live);
  $("curtain").hidden = live;
  $("status").dataset.verdict = $("curtain").dataset.verdict = live ? "ok" : state === "failed" ? "fail" : state === "waiting" ? "warn" : "busy";
  $("status-words").textContent = live ? "Watching live" : state === "failed" ? "Stopped" : state === "waiting" ? "Reconnecting…" : "Joining…";
  $("curtain-title").textContent = state === "waiting" || state === "failed" ? words[0] : "Joining…";
  $("curtain-words").textContent = state === "waiting" || state === "failed" ? words[1] : "";
  $("key").hidden = !(state === "failed" && (code === "unauthorised" || code === "forbidden"));
  if (live) playIt();
});
$("key").onsubmit = (/** @type {SubmitEvent} */ event) => {
  event.preventDefault();
  face.token = $("key-field").value.trim();
  face.redial();
};
face.connect().catch(() => undefined); // its words are on the page
