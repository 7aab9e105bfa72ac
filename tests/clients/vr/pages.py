"""Pages in headless Chromium: files are served on 127.0.0.1, the page posts what it found, the browser is ended."""

import asyncio
import base64
import contextlib
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from aiohttp import web

ROOT = Path(__file__).parents[3]
WEB = ROOT / "clients" / "vr" / "web"
NODE_MODULES = Path(__file__).parent / "node" / "node_modules"
PAGES = Path(__file__).parent / "pages"

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--disable-domain-reliability",
    "--no-first-run",
    "--no-default-browser-check",
    "--no-pings",
    "--proxy-server=127.0.0.1:9",  # nothing leaves this machine,
    "--proxy-bypass-list=127.0.0.1",  # and what stays needs no proxy
    "--mute-audio",
    "--autoplay-policy=no-user-gesture-required",
    "--window-size=400,440",
)


def chromium() -> str:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no chromium on this machine (apt-get install chromium)")
    return found


def node_modules() -> Path:
    if not (NODE_MODULES / "three").exists():
        pytest.skip("no three.js: run `npm ci --ignore-scripts` in tests/clients/vr/node")
    return NODE_MODULES


class Found:
    """What a page posted: JSON under `said`, pictures as PNG files."""

    def __init__(self, folder: Path) -> None:
        self.said: dict[str, Any] = {}
        self.pictures: dict[str, Path] = {}
        self.done = asyncio.Event()
        self._folder = folder

    async def take(self, request: web.Request) -> web.Response:
        posted = json.loads(await request.text())
        for name, address in posted.pop("pictures", {}).items():
            self.pictures[name] = self._folder / f"{name}.png"
            self.pictures[name].write_bytes(base64.b64decode(address.partition(",")[2]))
        self.said.update(posted)
        if posted.get("done"):
            self.done.set()
        return web.Response()


@asynccontextmanager
async def site(found: Found) -> AsyncIterator[str]:
    """`/web` is the client, `/pages` the tests' own, `/web/node_modules` what npm put beside the tests."""

    async def index(request: web.Request) -> web.Response:
        """The demo page, with a rider of ours on it, and a headset if one is asked for."""
        page = (WEB / "index.html").read_text()
        rider = '<script type="module" src="../pages/talk.js"></script></body>'
        if "xr" in request.query:
            headset = (
                '<script type="module" src="../pages/headset.js"></script>\n    <script type="module" src="./demo.js">'
            )
            page = page.replace('<script type="module" src="./demo.js">', headset)
        return web.Response(text=page.replace("</body>", rider), content_type="text/html")

    app = web.Application(client_max_size=2**26)
    app.router.add_post("/found", found.take)
    app.router.add_static("/web/node_modules", node_modules())
    app.router.add_get("/web/", index)
    app.router.add_static("/web", WEB)
    app.router.add_static("/pages", PAGES)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        listening = web.TCPSite(runner, "127.0.0.1", 0)
        await listening.start()
        assert listening._server is not None
        port = listening._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]  # asyncio's own server
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


async def browse(page: str, folder: Path, query: Mapping[str, str] | None = None, seconds: float = 60) -> Found:
    """Open a page of `/pages` or `/web` and wait until it posts `done`."""
    found = Found(folder)
    asked = "&".join(f"{name}={value}" for name, value in (query or {}).items())
    with TemporaryDirectory() as profile:
        async with site(found) as address:
            process = await asyncio.create_subprocess_exec(
                chromium(),
                *FLAGS,
                f"--user-data-dir={profile}",
                f"{address}/{page}?{asked}",
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
                start_new_session=True,
            )
            try:
                await asyncio.wait_for(found.done.wait(), seconds)
            except TimeoutError:
                pytest.fail(f"{page} did not finish within {seconds:g} s; it said {found.said}")
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # our own session: Chromium and its children, nobody else
                await process.wait()
                await asyncio.sleep(0.1)  # its children let go of the profile
    return found
