/** The room around a picture that is not as wide as the window. */

/**
 * Carries the picture's own edges on to the stage's, softly, so that a square presenter stands in a wide room. Drawn
 * once, very small, and stretched: it costs nothing per frame.
 * @param {HTMLCanvasElement} canvas @param {CanvasImageSource} source @param {number} width @param {number} height
 */
export function paintRoom(canvas, source, width, height) {
  const wide = (canvas.width = Math.max(8, Math.round(canvas.clientWidth / 12)));
  const tall = (canvas.height = Math.max(8, Math.round(canvas.clientHeight / 12)));
  const scale = Math.min(wide / width, tall / height);
  const [w, h] = [width * scale, height * scale];
  const [x, y] = [(wide - w) / 2, (tall - h) / 2];
  const pen = canvas.getContext("2d");
  if (!pen) return;
  pen.filter = "blur(1.2px)";
  const strip = Math.ceil(width / 50);
  if (x > 0.5) {
    pen.drawImage(source, 0, 0, strip, height, -3, -2, x + 5, tall + 4);
    pen.drawImage(source, width - strip, 0, strip, height, wide - x - 2, -2, x + 5, tall + 4);
  } else {
    pen.drawImage(source, 0, 0, width, strip, -2, -3, wide + 4, y + 5);
    pen.drawImage(source, 0, height - strip, width, strip, -2, tall - y - 2, wide + 4, y + 5);
  }
}
