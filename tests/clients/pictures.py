"""The pictures of the demo for the README, taken again: `python -m tests.clients.pictures docs`. To be looked at."""

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

from models.face import HOUSE_LIPS
from tests.clients.browsers import Server, browser, live, playing, start, until, voice, write_wav

# Resolves when the lips are nearly as far apart as they have been at most.
OPEN = """async ([first, end]) => {
    const wanted = document.querySelector("#points").getAttribute("aria-pressed") === "true";
    const apart = ({ detail }) => {
        const heights = detail.points.slice(first, end).map(([, y]) => y);
        return Math.max(...heights) - Math.min(...heights);
    };
    let most = 0;
    const began = performance.now();
    await new Promise((resolve) => {
        liveface.addEventListener("landmarks", (event) => {
            most = Math.max(most, apart(event));
            const waited = performance.now() - began;
            if (waited > 6000 || (waited > 2000 && apart(event) > 0.9 * most)) resolve();
        });
        liveface.landmarks(true);
    });
    if (!wanted) liveface.landmarks(false);
}"""

DESKTOP, PHONE = (1280, 800), (390, 844)


def shot(page: Any, path: Path) -> None:
    """WebP: a palette tears a soft background into bands, and a full PNG weighs ten times as much."""
    with Image.open(BytesIO(page.screenshot())) as picture:
        picture.convert("RGB").save(path, quality=88, method=6)


def speaking(page: Any) -> None:
    """A moment at which the mouth is open."""
    playing(page, 150)
    page.evaluate("liveface.say('Far away, a star. Far away, and far away, another, and another. Far away.')")
    until(page, "!document.querySelector('#speaking').hidden")
    page.wait_for_timeout(2500)
    page.evaluate(OPEN, [HOUSE_LIPS.start, HOUSE_LIPS.stop])


class Studio:
    """A server, a browser's driver, a voice."""

    def __init__(self, driver: Any, server: Server, folder: Path) -> None:
        self.driver, self.server, self.folder = driver, server, folder
        self.speech = write_wav(folder / "speech.wav", voice(20))
        self.taken = 0

    @contextmanager
    def visit(self, size: tuple[int, int] = DESKTOP, **wishes: Any) -> Iterator[Any]:
        self.taken += 1
        profile = self.folder / f"profile{self.taken}"
        with browser(self.driver, profile, self.speech, size=size, scale=1.5, **wishes) as context:
            yield context.pages[0]


def desktop(studio: Studio, path: Path) -> None:
    with studio.visit() as page:
        start(page, studio.server.url)
        speaking(page)
        shot(page, path)


def dark(studio: Studio, path: Path) -> None:
    with studio.visit(scheme="dark") as page:
        start(page, studio.server.url)
        page.click("#points")
        speaking(page)
        shot(page, path)


def phone(studio: Studio, path: Path) -> None:
    with studio.visit(PHONE, touch=True) as page:
        start(page, studio.server.url)
        speaking(page)
        shot(page, path)


def welcome(studio: Studio, path: Path) -> None:
    with studio.visit() as page:
        page.goto(studio.server.url)
        page.wait_for_selector(".gallery input:checked", state="attached")
        page.wait_for_timeout(800)
        shot(page, path)


def denied(studio: Studio, path: Path) -> None:
    with studio.visit(deny=True) as page:
        start(page, studio.server.url)
        playing(page, 60)
        shot(page, path)


def full(studio: Studio, path: Path) -> None:
    with studio.visit() as page, Server(("--slots", "1")) as small:
        start(page, small.url)
        second = page.context.new_page()
        second.goto(small.url)
        second.click("#start-quiet")
        until(second, "document.querySelector('#curtain-title').innerText === 'All seats are taken.'")
        shot(second, path)


def blocked(studio: Studio, path: Path) -> None:
    """No address of the server reaches the page: what a network without UDP looks like."""
    with studio.visit() as page:

        def nowhere(route: Any) -> None:
            answer = route.fetch()
            lines = [line for line in answer.text().split("\r\n") if not line.startswith("a=candidate")]
            route.fulfill(response=answer, body="\r\n".join(lines))

        page.route("**/v1/sessions/*/whip", nowhere)
        page.goto(studio.server.url)
        page.click("#start")
        until(page, "document.querySelector('#curtain-words').innerText.includes('UDP')", 25_000)
        shot(page, path)


def watching(studio: Studio, path: Path) -> None:
    with studio.visit() as page:
        start(page, studio.server.url)
        playing(page)
        viewer = page.context.new_page()
        viewer.goto(page.evaluate("document.querySelector('#watch-link').href"))
        live(viewer)
        playing(viewer, 30)
        shot(viewer, path)


def wall(studio: Studio, path: Path) -> None:
    with studio.visit() as page:
        start(page, studio.server.url)
        admin = page.context.new_page()
        admin.goto(studio.server.url + "admin")
        admin.click(".seat button")
        admin.wait_for_selector(".seat video")
        admin.wait_for_timeout(6000)
        shot(admin, path)


VIEWS: dict[str, Callable[[Studio, Path], None]] = {
    "demo-desktop": desktop,
    "demo-dark": dark,
    "demo-phone": phone,
    "demo-welcome": welcome,
    "demo-no-microphone": denied,
    "demo-no-seat": full,
    "demo-no-udp": blocked,
    "watch": watching,
    "admin": wall,
}


def main(folder: Path, wanted: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as scratch,
        Server(("--slots", "4", "--avatar", "ada")) as server,
        sync_playwright() as driver,
    ):
        studio = Studio(driver, server, Path(scratch))
        for name in wanted or list(VIEWS):
            VIEWS[name](studio, folder / f"{name}.webp")
            print(folder / f"{name}.webp", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs"), sys.argv[2:])
