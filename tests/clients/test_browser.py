"""The demo page, its SDK and its viewer, in headless Chromium, against a real `liveface serve`."""

import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from engine.media import Moment, Picture
from engine.probe import NUMBERS, stamp
from models.face import HOUSE_LIPS
from models.rates import HEARD_CHUNK
from tests.bench.browser import control_of
from tests.clients.browsers import (
    LIVE_MS,
    NODE,
    PAGE,
    RATE,
    Seen,
    Server,
    browser,
    live,
    mouth_of,
    node_module,
    playing,
    start,
    until,
    voice,
    watch,
    write_wav,
)

PAGE_FILES = ("index.html", "style.css", "app.js", "liveface.js", "page.js", "icon.svg")
PAGE_BYTES = 100_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(("--slots", "4"), log=tmp_path_factory.mktemp("server") / "log") as running:
        yield running


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_wav(tmp_path_factory.mktemp("speech") / "speech.wav", voice(12))


@pytest.fixture(scope="module")
def silence(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_wav(tmp_path_factory.mktemp("silence") / "silence.wav", np.zeros(2 * RATE))


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    """Playwright. Its loop runs in this thread until the module is done, so no test here is asynchronous."""
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: install liveface[dev]")
    with playwright.sync_playwright() as running:
        yield running


@pytest.fixture(scope="module")
def talking(driver: Any, tmp_path_factory: pytest.TempPathFactory, speech: Path) -> Iterator[Any]:
    """A Chromium that speech comes into."""
    with browser(driver, tmp_path_factory.mktemp("profile"), speech) as context:
        yield context


@pytest.fixture
def page(talking: Any) -> Iterator[Any]:
    """A new tab of it, and nobody complained in it."""
    talking.complaints.clear()
    talking.fetched.clear()
    tab = talking.new_page()
    yield tab
    for each in talking.pages:
        each.close()
    assert talking.complaints == []


def rising(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return (values - values.mean()) / (values.std() + 1e-9)


def best_lag(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64], most: int = 8) -> tuple[int, float]:
    """The shift of `b` against `a`, in pictures, at which they are most alike, and how much: (lag, correlation)."""
    scores = {}
    for lag in range(-most, most + 1):
        x, y = (a[max(0, lag) : len(a) + min(0, lag)], b[max(0, -lag) : len(b) + min(0, -lag)])
        scores[lag] = float((rising(x) * rising(y)).mean())
    lag = max(scores, key=lambda key: scores[key])
    return lag, scores[lag]


def movement(seen: Seen) -> npt.NDArray[np.float64]:
    """How far the mouth is from how it mostly is, picture by picture: a head that sways is taken out by its trend."""
    rest = np.median(seen.luma[seen.remote < np.quantile(seen.remote, 0.35)], axis=0)
    away = np.abs(seen.luma - rest).mean((1, 2))
    trend = np.convolve(np.pad(away, 12, mode="edge"), np.ones(25) / 25, "valid")
    return np.asarray(away - trend)


# What needs no browser


def test_the_page_weighs_less_than_100_kb():
    assert sum((PAGE / name).stat().st_size for name in PAGE_FILES) < PAGE_BYTES


def test_nothing_of_the_client_names_another_host():
    """It works offline: no font, script or picture comes from anywhere else."""
    for path in PAGE.iterdir():
        if path.suffix in {".html", ".css", ".js"}:
            text = path.read_text().replace("https://faces.example", "").replace("http://www.w3.org/2000/svg", "")
            assert "http://" not in text, path.name
            assert "https://" not in text, path.name


def test_npm_packs_the_sdk_and_nothing_else(tmp_path: Path):
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("no npm on this machine")
    packed = subprocess.run(
        [npm, "pack", "--json", "--pack-destination", str(tmp_path)],
        cwd=PAGE, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    (package,) = json.loads(packed.stdout)
    assert {entry["path"] for entry in package["files"]} == {
        "package.json", "README.md", "liveface.js", "liveface.d.ts", "meter.js"
    }  # fmt: skip
    assert (tmp_path / package["filename"]).stat().st_size < 40_000


def in_node(script: str) -> Any:
    """What a script prints as JSON, run by node with the SDK imported as `sdk`."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node on this machine")
    text = f'import * as sdk from "{(PAGE / "liveface.js").as_uri()}";\n{script}'
    done = subprocess.run(
        [node, "--input-type=module", "-"], input=text, capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_back_off_doubles_to_a_ceiling_and_is_never_in_step():
    waits = in_node(
        """console.log(JSON.stringify({
            soonest: [0, 1, 2, 3, 4, 5, 9].map((n) => sdk.backoff(n, 0, 0)),
            latest: [0, 1, 2, 3, 4, 5, 9].map((n) => sdk.backoff(n, 0, 1)),
            told: [0, 0.5, 1].map((chance) => sdk.backoff(0, 7000, chance)),
        }))"""
    )
    assert waits["soonest"] == [250, 500, 1000, 2000, 4000, 7500, 7500]
    assert waits["latest"] == [500, 1000, 2000, 4000, 8000, 15000, 15000]
    assert all(wait >= 7000 for wait in waits["told"])
    assert len(set(waits["told"])) == 3


FACTS = {
    "state": "live", "webrtc": True, "secure": True, "server": "ok", "trouble": None, "microphone": "on",
    "ice": "connected", "relayOffered": False, "route": "host", "protocol": "udp", "picture": True, "sound": True,
}  # fmt: skip


@pytest.mark.parametrize(
    ("facts", "name", "verdict", "words"),
    [
        ({}, "path", "ok", "Direct (UDP)"),
        ({"route": "relay"}, "path", "ok", "relay (TURN, UDP)"),
        ({"route": "relay", "protocol": "tcp"}, "path", "warn", "TCP"),
        ({"state": "waiting", "trouble": {"code": "no_path"}}, "path", "fail", "UDP seems to be blocked"),
        ({"state": "waiting", "trouble": {"code": "no_path"}, "relayOffered": True}, "path", "fail", "relay"),
        ({"state": "waiting", "trouble": {"code": "no_slot"}}, "seat", "warn", "All seats are taken"),
        ({"state": "waiting", "server": "unreachable"}, "server", "fail", "does not answer"),
        ({"state": "failed", "trouble": {"code": "unauthorised"}}, "server", "fail", "key"),
        ({"microphone": "microphone_denied"}, "microphone", "fail", "blocked"),
        ({"microphone": "microphone_missing"}, "microphone", "fail", "No microphone"),
        ({"microphone": "microphone_insecure"}, "microphone", "fail", "secure"),
        ({"microphone": "muted"}, "microphone", "ok", "nothing is sent"),
        ({"sound": False}, "sound", "warn", "holds the sound back"),
        ({"lossPercent": 9}, "media", "warn", "9 %"),
        ({"picture": False}, "media", "warn", "no picture"),
        ({"state": "connecting", "ice": "checking", "route": ""}, "path", "busy", "checking"),
        ({"webrtc": False}, "browser", "fail", "no WebRTC"),
    ],
)
def test_the_doctor_says_what_is_wrong(facts: dict[str, Any], name: str, verdict: str, words: str):
    findings = in_node(f"console.log(JSON.stringify(sdk.diagnose({json.dumps({**FACTS, **facts})})))")
    found = {finding["name"]: finding for finding in findings}
    assert found[name]["verdict"] == verdict
    assert words in found[name]["words"] + (found[name].get("advice") or "")
    others = [finding for finding in findings if finding["name"] != name]
    assert not any(finding["verdict"] == "fail" for finding in others)


def test_the_page_reads_the_marks_that_the_engine_writes():
    """`readMark` is the mirror of `engine.probe`: same bits, same check sum, nothing read where nothing is written."""
    rng = np.random.default_rng(5)
    marks = [(int(number), bool(loud)) for number, loud in rng.integers(0, (NUMBERS, 2), (24, 2))]
    marks += [(0, False), (NUMBERS - 1, True)]
    pixels = []
    for number, loud in marks:
        grey = np.full((64, 64), 120, np.uint8)
        half = np.full((32, 32), 128, np.uint8)
        sound = np.full(HEARD_CHUNK, 9_000 if loud else 3, np.int16)
        moment = Moment(number * HEARD_CHUNK, 0, sound, loud, Picture(64, 64, grey, half, half))
        stamped = stamp(moment).picture
        assert stamped is not None
        pixels.append(seen_by_a_canvas(stamped.y, rng))
    broken = pixels[0].copy()
    broken[: 8 * 64 * 4, ...] = 255 - broken[: 8 * 64 * 4, ...]
    read = in_node(
        f"""const {{ readMark }} = await import("{(PAGE / "meter.js").as_uri()}");
        const rows = {json.dumps([row.tolist() for row in [*pixels, broken, np.full(64 * 24 * 4, 127)]])};
        console.log(JSON.stringify(rows.map((row) => readMark(Uint8ClampedArray.from(row)))));"""
    )
    assert [(each["number"], each["loud"]) for each in read[:-2]] == marks
    assert read[-2:] == [None, None]


def seen_by_a_canvas(luma: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """RGBA of the upper left 64 x 24, full range, with the noise of a codec."""
    grey = (luma[:24, :64].astype(float) - 16) * 255 / 219 + rng.normal(0, 12, (24, 64))
    rgba = np.repeat(np.clip(grey, 0, 255).round().astype(int)[..., None], 4, axis=2)
    rgba[..., 3] = 255
    return np.asarray(rgba.reshape(-1))


def test_the_control_of_the_bench_reads_what_was_inserted_whatever_drifts():
    """80 ms in every second block, in the order A B, B A, ...; beneath it a drift of 3 ms a block and a tremble."""
    longer = [False, True, True, False, False, True, True, False]
    found = control_of([(late, 170 + 3 * at + 80 * late) for at, late in enumerate(longer)])
    assert found.read_ms == pytest.approx(80)
    assert found.pairs_ms == (83, 77, 83, 77)
    rng = np.random.default_rng(2)
    held = 0
    for _ in range(200):
        found = control_of([(late, 170 + 80 * late + rng.normal(0, 4)) for late in longer])
        held += abs(found.read_ms - 80) <= found.within_ms
    assert 178 <= held <= 200, "a 95 % interval that holds the truth in another share of cases"


# Live

DECODED = """async () => {
    for (const stat of (await liveface.stats()).values())
        if (stat.type === "inbound-rtp" && stat.kind === "video")
            return { pictures: stat.framesDecoded, seconds: stat.timestamp / 1000 };
}"""


def rate(page: Any, seconds: float) -> float:
    """Pictures a second that the browser decodes, by its own count and clock."""
    before = page.evaluate(DECODED)
    page.wait_for_timeout(1000 * seconds)
    after = page.evaluate(DECODED)
    return float((after["pictures"] - before["pictures"]) / (after["seconds"] - before["seconds"]))


# Of the last landmarks received, the set that the overlay shows best: where it puts the lips, and how many have a dot.
DRAWN = """([first, end]) => {
    const canvas = document.querySelector("#overlay");
    const { width, height } = canvas;
    const pixels = canvas.getContext("2d").getImageData(0, 0, width, height).data;
    const dotted = ([x, y]) => pixels[4 * (Math.round(y * height) * width + Math.round(x * width)) + 3] > 0;
    const scored = received.map((points) => points.slice(first, end)).map((points) => (
        { lips: points, share: points.filter(dotted).length / points.length }));
    let inked = 0;
    for (let i = 3; i < pixels.length; i += 4) inked += pixels[i] > 0;
    return { ...scored.sort((a, b) => b.share - a.share)[0], covered: inked / (width * height) };
}"""


def test_open_speak_and_be_seen(page: Any, server: Server):
    """One visit: the microphone, the picture, the mouth that moves with the sound, a refresh."""
    start(page, server.url)
    playing(page)
    assert page.inner_text("#status-words") == "Live"
    assert page.is_visible("#badge")

    seen = watch(page, 7, mouth_of(page), pictures=110)
    assert seen.local.max() > 0.02, "the fake microphone is silent: this test would prove nothing"
    assert seen.remote.max() > 0.02, "nothing is heard"
    loudness = np.convolve(seen.remote, np.ones(3) / 3, "same")
    lag, alike = best_lag(movement(seen), loudness)
    _, backwards = best_lag(movement(seen), loudness[::-1])
    assert alike > 0.35, f"the mouth does not move with the sound: correlation {alike:.2f} at {lag} pictures"
    assert abs(lag) <= 4
    assert alike > backwards + 0.1, "it moves as much with any sound"

    rates = [rate(page, 5)]
    while not 24.5 < rates[-1] < 25.5 and len(rates) < 4:  # a stream at another rate is never in time
        rates.append(rate(page, 5))
    assert 24.5 < rates[-1] < 25.5, f"pictures a second: {rates}"
    until(page, "/^2[456] .s$/.test(document.querySelector('#n-fps').textContent)", 8_000)
    assert page.inner_text("#n-trip").endswith("ms")

    before = page.evaluate("liveface.session.session_id")
    page.reload()
    live(page)
    playing(page)
    assert page.evaluate("liveface.session.session_id") != before
    assert all(url.startswith((server.url, "data:", "blob:")) for url in page.context.fetched)


SAY = """() => {
    window.told = [];
    liveface.addEventListener("event", ({ detail }) => window.told.push(detail.type));
    return liveface.say("This sentence goes on for a very long time, and then it goes on for a little longer, and on.");
}"""


def test_an_interrupt_is_heard_and_seen(page: Any, server: Server):
    """Esc in mid-sentence: within 0.4 s there is no sound left in the page, and the mouth rests."""
    start(page, server.url, button="#start-quiet")
    playing(page)
    page.evaluate("addEventListener('keydown', () => (window.pressed = performance.now()), true)")

    def say_and_press() -> None:
        page.evaluate(SAY)
        until(page, "window.told.includes('speech.started')", 10_000)
        page.wait_for_timeout(2000)
        page.keyboard.press("Escape")
        until(page, "window.told.includes('cleared')", 3_000)

    seen = watch(page, 8, mouth_of(page), meanwhile=say_and_press)
    since = seen.at - page.evaluate("window.pressed")
    speaking, after = (since > -1200) & (since < 0), since > 400
    assert np.median(seen.remote[speaking]) > 0.005, "it was not speaking when it was interrupted"
    assert seen.remote[after].max() < 0.001, f"heard {since[seen.remote > 0.001].max():.0f} ms after the interrupt"
    change = np.abs(np.diff(seen.luma, axis=0)).mean((1, 2))
    moved, rested = np.median(change[speaking[1:]]), np.median(change[after[1:]])
    assert rested < 0.5 * moved, f"the mouth goes on: {rested:.2f} grey levels a picture, {moved:.2f} in speech"


def test_two_tabs_have_two_sessions_and_hear_only_their_own(page: Any, server: Server):
    start(page, server.url)
    quiet = page.context.new_page()  # the same device, another session; it does not listen
    start(quiet, server.url, button="#start-quiet")
    assert page.evaluate("liveface.session.session_id") != quiet.evaluate("liveface.session.session_id")
    assert watch(quiet, 2).remote.max() < 0.003, "the quiet tab hears somebody"
    page.bring_to_front()
    assert watch(page, 2).remote.max() > 0.02, "the talking tab does not hear itself"

    page.evaluate("liveface.listening = false")
    for _ in range(10):  # its last words are on their way, on a crowded machine for longer
        if watch(page, 0.5).remote.max() < 0.003:
            break
    assert watch(page, 2.5, meanwhile=lambda: quiet.evaluate(SAY)).remote.max() < 0.003, "it hears the other tab"
    quiet.bring_to_front()
    assert watch(quiet, 1).remote.max() > 0.005, "the other tab does not hear itself"


def test_the_points_lie_on_the_mouth_that_is_seen(page: Any, server: Server):
    """Where pixels move most in speech, there is the mouth; there the engine says the lips are, and there are dots."""
    start(page, server.url)
    playing(page)
    page.evaluate(
        """() => {
            window.received = [];
            liveface.addEventListener("landmarks", ({ detail }) => {
                received.push(detail.points);
                if (received.length > 12) received.shift();
            });
        }"""
    )
    page.click("#points")
    page.wait_for_timeout(600)
    drawn = page.evaluate(DRAWN, [HOUSE_LIPS.start, HOUSE_LIPS.stop])
    assert drawn["share"] == 1, "not every point of the lips has its dot"
    assert drawn["covered"] < 0.03, "this is no row of dots"

    lower = (0.15, 0.4, 0.7, 0.6)  # of the picture: cheeks, mouth, chin, shoulders
    seen = watch(page, 5, lower, pictures=90)
    spread = np.abs(np.diff(seen.luma, axis=0)).mean(0)
    y, x = np.nonzero(spread >= np.quantile(spread, 0.96))
    moving = np.median(np.stack([(x + 0.5) / 32, (y + 0.5) / 24], 1), axis=0) * lower[2:] + lower[:2]
    low, high = np.min(drawn["lips"], axis=0), np.max(drawn["lips"], axis=0)
    room = 0.35 * (high - low).max()
    within = (low - room < moving) & (moving < high + room)
    assert within.all(), f"lips at {low} … {high}, the mouth at {moving}"

    page.click("#points")
    assert not page.is_visible("#overlay")


def test_without_permission_the_page_says_so_and_goes_on(driver: Any, tmp_path: Path, server: Server):
    with browser(driver, tmp_path / "profile", deny=True) as context:
        page = context.pages[0]
        start(page, server.url)
        playing(page)
        until(page, "document.querySelector('#findings').innerText.includes('The microphone is blocked')")
        assert page.is_visible("#doctor")
        assert page.inner_text("#status-words") == "Live, without your microphone"
        assert "blocked" in page.inner_text("#hold-hint")
        until(page, "document.querySelector('#n-fps').textContent.startsWith('2')")
        assert page.inner_text("#n-latency") == "–", "no sound of a mouth came in that could be late"


def test_a_full_house_is_said_in_words_and_waited_for(page: Any, tmp_path: Path):
    with Server(("--slots", "1"), log=tmp_path / "log") as small:
        start(page, small.url, button="#start-quiet")
        second = page.context.new_page()
        second.goto(small.url)
        second.click("#start-quiet")
        until(second, "document.querySelector('#curtain-title').innerText === 'All seats are taken.'")
        assert "Trying again" in second.inner_text("#curtain-words")
        assert "All seats are taken" in second.inner_text("#doctor")
        page.click("#end")
        until(page, "document.querySelector('#status-words').innerText === 'Ended'")
        second.click("#start")
        live(second)


def test_a_viewer_watches(page: Any, server: Server):
    start(page, server.url)
    playing(page)
    viewer = page.context.new_page()
    viewer.goto(page.evaluate("document.querySelector('#watch-link').href"))
    live(viewer)
    playing(viewer)
    assert viewer.inner_text("#status-words") == "Watching live"
    assert watch(viewer, 2).remote.max() > 0.02, "the viewer hears nothing"
    page.close()
    until(viewer, "document.querySelector('#curtain-title').innerText.includes('is over')", 25_000)


# The matrix


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_a_server_that_comes_back_is_found_again(driver: Any, how: signal.Signals, tmp_path: Path, silence: Path):
    server = Server(("--slots", "2"), log=tmp_path / "log", environ={"LIVEFACE_DEADLINES__DRAIN": "1"})
    with server, browser(driver, tmp_path / "profile", silence) as context:
        page = context.pages[0]
        start(page, server.url)
        first = page.evaluate("liveface.session.session_id")
        server.stop(how)
        until(page, "liveface.state === 'waiting'", 20_000)
        until(page, "document.querySelector('#curtain').checkVisibility()")
        assert "Trying again" in page.inner_text("#curtain-words")
        server.start()
        live(page, 40_000)
        playing(page)
        assert page.evaluate("liveface.session.session_id") != first


@pytest.mark.slow
def test_without_a_path_the_page_blames_udp_and_not_itself(driver: Any, tmp_path: Path, server: Server, silence: Path):
    with browser(driver, tmp_path / "profile", silence) as context:
        page = context.pages[0]

        def nowhere(route: Any) -> None:
            answer = route.fetch()
            lines = [line for line in answer.text().split("\r\n") if not line.startswith("a=candidate")]
            route.fulfill(response=answer, body="\r\n".join(lines))

        page.route("**/v1/sessions/*/whip", nowhere)
        page.goto(server.url)
        page.click("#start")
        until(page, "document.querySelector('#curtain-words').innerText.includes('UDP')", 25_000)
        assert "UDP seems to be blocked" in page.inner_text("#findings")


@pytest.mark.slow
def test_push_to_talk_sends_nothing_until_the_key_is_held(page: Any, server: Server):
    start(page, server.url)
    page.uncheck("#hands-free", force=True)
    page.evaluate("document.activeElement.blur()")
    page.wait_for_timeout(400)
    assert watch(page, 2).remote.max() < 0.003
    page.keyboard.down("Space")
    assert watch(page, 2.5).remote.max() > 0.02
    page.keyboard.up("Space")
    page.wait_for_timeout(500)
    assert watch(page, 1.5).remote.max() < 0.003


@pytest.mark.slow
def test_a_dropped_audio_file_is_spoken(driver: Any, tmp_path: Path, server: Server, speech: Path, silence: Path):
    with browser(driver, tmp_path / "profile", silence) as context:
        page = context.pages[0]
        start(page, server.url)
        page.set_input_files("#file", str(speech))
        until(page, "document.querySelector('#say-note').innerText === 'Speaking speech.wav'")
        assert watch(page, 3).remote.max() > 0.02


@pytest.mark.slow
def test_refused_sound_is_one_button_away(driver: Any, tmp_path: Path, server: Server, silence: Path):
    """A page that was not touched yet may not make a sound: it shows the picture and asks.

    Whatever this test asks the page counts as a touch, so the page has to say of itself that it has come so far.
    """
    flags = ("--autoplay-policy=document-user-activation-required",)
    with browser(driver, tmp_path / "profile", silence, flags=flags) as context:
        page = context.pages[0]
        page.add_init_script(
            """sessionStorage.setItem("liveface.talking", "quiet");
            addEventListener("DOMContentLoaded", () => {
                const button = document.querySelector("#unmute");
                const seen = new MutationObserver(() => button.hidden || console.log("sound is refused"));
                seen.observe(button, { attributes: true });
            });"""
        )
        with page.expect_console_message(lambda message: message.text == "sound is refused", timeout=LIVE_MS):
            page.goto(server.url)
        live(page)
        playing(page)
        assert page.is_visible("#unmute")
        assert page.evaluate("document.querySelector('video').muted")
        page.click("#unmute")
        until(page, "!document.querySelector('video').muted")
        assert not page.is_visible("#unmute")
        playing(page)


@pytest.mark.slow
def test_the_wall_shows_who_is_here_and_lets_the_operator_look_on(page: Any, server: Server):
    start(page, server.url)
    wall = page.context.new_page()
    wall.goto(server.url + "admin")
    wall.wait_for_selector(".seat button", timeout=10_000)
    until(wall, "document.querySelector('#stages').innerText.includes(' ms')")
    assert wall.inner_text(".seat h3") == server.get("v1/avatars")["avatars"][0]["title"]
    wall.click(".seat button")
    wall.wait_for_selector(".seat video", timeout=15_000)
    playing(wall)
    page.click("#end")
    until(wall, "document.querySelectorAll('.seat').length === 0")


@pytest.mark.slow
def test_the_meter_finds_when_the_sound_of_each_picture_was_spoken(driver: Any, tmp_path: Path, speech: Path):
    with (
        Server(("--slots", "1", "--probe"), log=tmp_path / "log") as probing,
        browser(driver, tmp_path / "profile", speech) as context,
    ):
        page = context.pages[0]
        start(page, probing.url + "?processing=off")
        until(page, "(livefaceMeter()?.summary()?.count ?? 0) > 60", 40_000)
        found = page.evaluate("({ ...livefaceMeter().summary(), shown: livefaceMeter().marks.length })")
        assert found["right"] > 0.93
        assert found["sureMs"] < 13
        assert 80 < found["glass"]["p50"] < 3_000
        assert found["unread"] < 0.05 * found["shown"]
        until(page, "document.querySelector('#n-latency-how').textContent === 'measured'")
        apart = []
        for _ in range(5):
            page.wait_for_timeout(1500)
            apart.append(page.evaluate("livefaceEstimate() - livefaceMeter().summary().p50"))
        assert abs(np.median(apart)) < 40, f"what the page would estimate is {np.median(apart):.0f} ms beside the truth"


AXE = """() => axe.run(document, { resultTypes: ["violations"] }).then(({ violations }) =>
    violations.map((v) => [v.id, v.help, v.nodes.map((node) => node.target.join(" ") + ": " + node.failureSummary)]))"""


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1440, 900), (390, 844)], ids=["desktop", "phone"])
def test_axe_finds_nothing(
    driver: Any, scheme: str, size: tuple[int, int], tmp_path: Path, server: Server, speech: Path
):
    axe = node_module("axe-core", "axe.min.js").read_text()
    with browser(driver, tmp_path / "profile", speech, scheme=scheme, size=size) as context:
        page = context.pages[0]

        def clean(where: str) -> None:
            page.evaluate(axe)
            assert page.evaluate(AXE) == [], where

        page.goto(server.url)
        page.wait_for_selector(".gallery input:checked", state="attached")
        clean("ready")
        page.click("#start")
        live(page)
        page.click("#status")
        page.wait_for_timeout(2500)
        clean("live, with the doctor")
        link = page.evaluate("document.querySelector('#watch-link').href")
        page.evaluate("liveface.close()")
        clean("ended")
        page.route("**/v1/sessions", lambda route: route.fulfill(status=401, body="{}"))
        page.click("#start")
        page.wait_for_selector("#key-field")
        clean("locked")
        page.goto(link)
        page.wait_for_timeout(1500)
        clean("watch")
        page.goto(server.url + "admin")
        page.wait_for_timeout(2500)
        clean("admin")


@pytest.mark.slow
def test_every_control_is_reached_with_the_keyboard_in_the_order_it_is_seen(page: Any, server: Server):
    start(page, server.url)
    page.focus(".skip")
    reached = []
    for _ in range(40):
        page.keyboard.press("Tab")
        at = page.evaluate("document.activeElement.id || document.activeElement.name || ''")
        if at in reached:
            break
        reached.append(at)
    wanted = ["status", "numbers-toggle", "theme", "points", "hold", "microphone", "hands-free", "text", "voice"]
    wanted += ["file", "say-go", "interrupt", "end", "avatar", "show-badge", "watch-link"]
    assert [each for each in reached if each in wanted] == wanted


STRANGERS = """<!doctype html><title>strangers</title><video autoplay muted playsinline></video>"""


# Both scripts end with the face in the page's video element and `window.liveface` as `watch` wants it.

TICKET = """
    const ticket = await fetch("/v1/sessions", {
        method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ transport: "webrtc" }),
    }).then((answer) => answer.json());
    const up = new URL(ticket.whip_url, location), down = new URL(ticket.whep_url, location);
    const key = ticket.view_token ?? ticket.token;
    const video = document.querySelector("video");
    const microphone = await navigator.mediaDevices.getUserMedia({ audio: true });
"""

BY_AN_AUTHOR_OF_THE_RFC = """
    const { WHIPClient, WHEPClient } = await import("/strangers.js");
    const sender = new RTCPeerConnection();
    sender.addTransceiver(microphone.getAudioTracks()[0], { direction: "sendonly", streams: [microphone] });
    await new WHIPClient().publish(sender, up.href, ticket.token);
    const receiver = new RTCPeerConnection();
    receiver.addTransceiver("video", { direction: "recvonly" });
    receiver.addTransceiver("audio", { direction: "recvonly" });
    const stream = new MediaStream();
    receiver.ontrack = ({ track }) => stream.addTrack(track);
    await new WHEPClient().view(receiver, down.href, key);
    video.srcObject = stream;
    window.liveface = { stream, microphone };
"""

BY_A_BROADCASTER = """
    const { WHIPClient, WebRTCPlayer } = await import("/strangers.js");
    await new WHIPClient({ endpoint: up.href, opts: { authkey: ticket.token, iceServers: [] } }).ingest(microphone);
    const player = new WebRTCPlayer({ video, type: "whep", iceServers: [] });
    await player.load(down, `Bearer ${key}`);
    const deadline = performance.now() + 15000;
    while (!(video.srcObject?.getAudioTracks().length && video.videoWidth) && performance.now() < deadline)
        await new Promise((resolve) => setTimeout(resolve, 50));
    window.liveface = { stream: video.srcObject, microphone };
"""


def bundled(folder: Path, source: str) -> str:
    """A module of the node folder and all that it imports, as one that a page can import."""
    esbuild, out = node_module(".bin", "esbuild"), folder / "bundle.js"
    command = [str(esbuild), source, "--bundle", "--format=esm", "--log-level=error", f"--outfile={out}"]
    subprocess.run(command, cwd=NODE, check=True, timeout=60)
    return out.read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "script"),
    [("author.js", BY_AN_AUTHOR_OF_THE_RFC), ("broadcaster.js", BY_A_BROADCASTER)],
    ids=["whip-whep", "eyevinn"],
)
def test_strangers_whip_and_whep_clients_connect(
    driver: Any, tmp_path: Path, server: Server, speech: Path, source: str, script: str
):
    """Packages from npm, which nobody here wrote: a voice goes up by one, the face comes down by the other."""
    text = bundled(tmp_path, source)
    with browser(driver, tmp_path / "profile", speech) as context:
        page = context.pages[0]
        page.route("**/strangers", lambda route: route.fulfill(body=STRANGERS, content_type="text/html"))
        page.route("**/strangers.js", lambda route: route.fulfill(body=text, content_type="text/javascript"))
        page.goto(server.url + "strangers")
        page.evaluate(f"async () => {{ {TICKET} {script} }}")
        until(page, "document.querySelector('video').videoWidth > 0", 15_000)
        playing(page)
        seen = watch(page, 3)
        assert seen.remote.max() > 0.02, "the voice that went up does not come down"
        assert np.abs(np.diff(seen.luma, axis=0)).max() > 0, "the picture stands still"
        # whip-whep's player forgets the ETag, so RFC 9725 has its trickled candidates refused. It plays nevertheless.
        assert set(context.complaints) <= {"Request rejected with status 428"}
        assert all(url.startswith((server.url, "blob:")) for url in context.fetched)


# The types


@pytest.mark.slow
def test_the_types_hold_and_the_declarations_are_those_of_the_code(tmp_path: Path):
    tsc = node_module(".bin", "tsc")
    checked = subprocess.run([str(tsc), "-p", "tsconfig.json"], cwd=NODE, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout
    subprocess.run([str(tsc), "-p", "tsconfig.types.json", "--outDir", str(tmp_path)], cwd=NODE, check=True)
    fresh = next(tmp_path.rglob("liveface.d.ts")).read_text()
    assert fresh == (PAGE / "liveface.d.ts").read_text(), "write liveface.d.ts again: see tests/clients/node"
