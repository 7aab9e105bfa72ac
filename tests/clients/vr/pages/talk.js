// Rides on the demo page: speaks syllables through it and writes down what was heard and what was seen at the same time.

const posted = { errors: [], series: [], pictures: {}, events: [] };
addEventListener("error", (event) => posted.errors.push(String(event.message)));
addEventListener("unhandledrejection", (event) => posted.errors.push(String(event.reason?.stack ?? event.reason)));
const wait = (ms) => new Promise((done) => setTimeout(done, ms));
const query = new URLSearchParams(location.search);

function syllables(seconds, rate) {
  const samples = new Float32Array(seconds * rate);
  for (let i = 0; i < samples.length; i++) {
    const t = i / rate;
    const loud = Math.max(0, Math.sin(2 * Math.PI * 1.25 * (t - 0.4))) ** 0.5;
    for (let k = 1; k < 20; k++) samples[i] += (loud * 0.25 * Math.sin(2 * Math.PI * 120 * k * t)) / k ** 0.8;
  }
  return samples;
}

async function run() {
  const { liveface } = globalThis;
  for (let i = 0; i < 200 && !liveface.driver; i++) await wait(50);
  const { avatar, renderer } = liveface;
  posted.names = avatar.names.length;
  posted.missing = liveface.driver.missing;
  const jaw = avatar.names.indexOf("jawOpen");
  const ear = avatar.audioContext.createAnalyser();
  ear.fftSize = 1024;
  avatar.output.connect(ear);
  avatar.addEventListener("event", ({ detail }) => posted.events.push(detail.type));
  const wave = new Float32Array(ear.fftSize);
  const began = performance.now();
  let most = 0;
  const look = () => {
    const face = avatar.sample();
    if (face) {
      ear.getFloatTimeDomainData(wave);
      const loud = Math.sqrt(wave.reduce((sum, x) => sum + x * x, 0) / wave.length);
      posted.series.push([performance.now() - began, avatar.headUs, face.ptsUs, loud, face.values[jaw], avatar.bufferedMs]);
      if (face.values[jaw] > 1.3 * most + 0.02) {
        most = face.values[jaw];
        liveface.driver.apply(face); // the page's own frames may be long in coming
        renderer.render(liveface.scene, liveface.camera);
        posted.pictures.open = renderer.domElement.toDataURL("image/png");
      }
    }
    if (!posted.done) setTimeout(look, 8);
  };
  await wait(600);
  posted.pictures.rest = renderer.domElement.toDataURL("image/png");
  look();
  await liveface.speak(syllables(4, 48000), 48000);
  await wait(500);
  avatar.interrupt();
  await wait(500);
  posted.epoch = avatar.sample()?.epoch;
  posted.state = avatar.audioContext.state;
  posted.text = document.getElementById("said").textContent;
  posted.mark = document.getElementById("mark").hidden ? "" : document.getElementById("mark").textContent;
  posted.frames = liveface.frames;
  posted.faces = avatar.faces;
  posted.seconds = (performance.now() - began) / 1000;
  if (query.has("xr")) posted.xr = await immersed(liveface);
  await avatar.close();
}

/** An emulated headset: a session begins, and the face still moves in it. */
async function immersed({ renderer }) {
  const session = await navigator.xr.requestSession("immersive-vr", { optionalFeatures: ["local-floor"] });
  await renderer.xr.setSession(session);
  const before = globalThis.liveface.frames;
  await wait(700);
  const found = { presenting: renderer.xr.isPresenting, frames: globalThis.liveface.frames - before, cameras: renderer.xr.getCamera().cameras.length };
  await session.end();
  return found;
}

run()
  .catch((error) => posted.errors.push(String(error.stack ?? error)))
  .finally(() => {
    posted.done = true;
    return fetch("/found", { method: "POST", body: JSON.stringify(posted) });
  });
