/** What the pages have in common: what they remember, their colours, the room around a picture, sound that is refused. */

/** What a page remembers; a browser that forbids it forgets, and that is all. @param {"localStorage"|"sessionStorage"} kind */
const remembering = (kind) => ({
  /** @param {string} key */
  get(key, otherwise = "") {
    try {
      return window[kind].getItem(`liveface.${key}`) ?? otherwise;
    } catch {
      return otherwise;
    }
  },
  /** @param {string} key @param {string} value */
  set(key, value) {
    try {
      window[kind].setItem(`liveface.${key}`, value);
    } catch {
      // Private windows may refuse.
    }
  },
});
export const memory = remembering("localStorage");
export const tab = remembering("sessionStorage"); // the access key, too: it goes when the tab goes

export const THEMES = ["system", "light", "dark"];

/** The colours that were chosen on any of the pages. */
export const theme = () => memory.get("theme", "system");

/** @param {string} chosen */
export function setTheme(chosen) {
  if (chosen === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = chosen;
  if (chosen !== theme()) memory.set("theme", chosen);
}
setTheme(theme());

/**
 * The browser may refuse sound until it is asked for by hand: then picture first, and one clear button.
 * @param {HTMLVideoElement} video @param {MediaStream} stream @param {HTMLElement} button shown when sound is refused
 * @returns {Promise<boolean>} whether it is heard
 */
export async function play(video, stream, button) {
  // Not before there is something to play: an empty stream would hold back the page's load event.
  if (video.srcObject !== stream) video.srcObject = stream;
  try {
    video.muted = false;
    await video.play();
  } catch {
    video.muted = true;
    await video.play().catch(() => undefined);
  }
  button.hidden = !video.muted;
  return !video.muted;
}

/**
 * Carries the picture's own edges on to the stage's, softly, so that a square presenter stands in a wide room. Lies
 * over the picture and fades out within it, so that no seam shows. Drawn once, very small, and stretched: it costs
 * nothing per frame.
 * @param {HTMLCanvasElement} canvas @param {CanvasImageSource} source @param {number} width @param {number} height
 */
export function paintRoom(canvas, source, width, height) {
  const wide = (canvas.width = Math.max(8, Math.round(canvas.clientWidth / 8)));
  const tall = (canvas.height = Math.max(8, Math.round(canvas.clientHeight / 8)));
  const scale = Math.min(wide / width, tall / height);
  const [w, h] = [width * scale, height * scale];
  const [x, y] = [(wide - w) / 2, (tall - h) / 2];
  const pen = canvas.getContext("2d");
  if (!pen || Math.max(x, y) < 0.5) return;
  const sideways = x > y;
  const [long, bar, span] = sideways ? [wide, x, w] : [tall, y, h];
  const fade = span * 0.07;
  const strip = Math.ceil((sideways ? width : height) / 60);
  pen.filter = "blur(2px)";
  for (const far of [false, true]) {
    const from = far ? (sideways ? width : height) - strip : 0;
    const at = far ? long - bar - fade - 4 : -6;
    const size = bar + fade + 10;
    if (sideways) pen.drawImage(source, from, 0, strip, height, at, -4, size, tall + 8);
    else pen.drawImage(source, 0, from, width, strip, -4, at, wide + 8, size);
  }
  pen.filter = "none";
  pen.globalCompositeOperation = "destination-in";
  const mask = sideways ? pen.createLinearGradient(0, 0, long, 0) : pen.createLinearGradient(0, 0, 0, long);
  // Whole for two pixels more than the bars are wide: nothing of the ground behind shines through where they meet.
  for (const [at, alpha] of [[bar + 2, 1], [bar + fade, 0], [long - bar - fade, 0], [long - bar - 2, 1]])
    mask.addColorStop(Math.min(1, Math.max(0, at / long)), `rgb(0 0 0 / ${alpha})`);
  pen.fillStyle = mask;
  pen.fillRect(0, 0, wide, tall);
}
