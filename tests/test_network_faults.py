"""N1, N2, N6, N9 and S9 on whole connections. The other N are in engine/test_webrtc.py."""

import asyncio
import re

import numpy as np
import pytest

from engine.webrtc import Deadlines
from tests.engine.test_webrtc import hosting, join, join_through, open_files, tone
from tests.fakes import PRESETS, Impair, LossyLink
from tests.processor import Waits, remeasured
from tests.webrtc_client import Client

ANYWHERE = ("127.0.0.1", 9)
"""Until the answer names the port."""


@remeasured
@pytest.mark.parametrize("seconds", [pytest.param(6, id="6 s"), pytest.param(600, id="10 min", marks=pytest.mark.slow)])
async def test_n1_packets_that_come_when_they_like_freeze_nothing_and_lose_no_word(seconds: int) -> None:
    """Delays with a deviation of 20 ms both ways, and one packet in fifty behind its neighbours."""
    shaky = Impair(delay=0.030, jitter=0.020, reorder=0.02)
    async with (
        hosting() as (peers, talk),
        LossyLink(ANYWHERE, up=shaky, down=shaky) as link,
        Client(tone(seconds + 2), stock=True, codecs=("VP8",), decode=False) as client,
    ):
        peer = await join_through(link, peers, talk, client)
        await client.until(lambda: len(client.shown) > 10)
        shown, pushed = len(client.shown), len(talk.pushed)
        async with Waits() as waits:
            await asyncio.sleep(seconds)
        gaps = np.diff([at for at, _ in client.shown[shown:]])
        assert (gaps > 0.040 + 0.150 + waits.longest).sum() == 0, "what a browser calls a freeze"
        assert peer.stats()["voice_lost"] <= shaky.reorder * len(talk.pushed), "some come behind two others"
        assert len(talk.pushed) - pushed >= 0.97 * 50 * seconds - 50 * waits.seconds


@remeasured
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "3G" else pytest.mark.slow) for name in PRESETS]
)
async def test_n2_on_the_usual_bad_networks_one_is_heard_and_something_is_seen(name: str) -> None:
    weather = PRESETS[name]
    async with (
        hosting() as (peers, talk),
        LossyLink(ANYWHERE, up=weather, down=weather) as link,
        Client(tone(20), stock=True, decode=False) as client,
    ):
        peer = await join_through(link, peers, talk, client)
        await client.until(lambda: len(client.pictures) > 0 and len(client.sounds) > 0 and len(talk.pushed) > 0)
        sounds, pictures, pushed = len(client.sounds), len(client.pictures), len(talk.pushed)
        async with Waits() as waits:
            await asyncio.sleep(4)
        through = 200 * (1 - weather.loss) - 50 * waits.seconds
        assert len(client.sounds) - sounds > 0.85 * through, "sound is kept first"
        assert len(talk.pushed) - pushed > 0.80 * through
        assert len(client.pictures) - pictures > 4
        assert peer.reason is None


@remeasured
async def test_n6_where_no_udp_comes_through_the_seat_is_free_by_the_deadline() -> None:
    async with (
        hosting(deadlines=Deadlines(first_media=1.0)) as (peers, talk),
        LossyLink(ANYWHERE) as link,
        Client(decode=False) as client,
    ):
        link.dark = True
        offer = await client.offer()
        files = open_files()
        answer, peer = await peers.answer(offer, talk)
        port = re.search(r"127\.0\.0\.1 (\d+) typ host", answer)
        assert port is not None
        link.target = ("127.0.0.1", int(port[1]))
        await client.accept(answer.replace(f"127.0.0.1 {port[1]} typ", f"127.0.0.1 {link.address[1]} typ"))
        await asyncio.wait_for(peer.closed.wait(), 5)
        assert peer.reason == "never connected"
        assert talk.outlets == []
        assert open_files() <= files


@remeasured
async def test_n9_a_client_that_vanishes_leaves_nothing_and_its_neighbour_sees_on() -> None:
    async with hosting(deadlines=Deadlines(silence=1.0)) as (peers, talk), Client(tone(10), decode=False) as stays:
        await join(peers, talk, stays)
        await stays.until(lambda: len(stays.pictures) > 5)
        files = open_files()
        gone = Client(tone(10), decode=False)
        peer = await join(peers, talk, gone)
        await gone.until(lambda: len(gone.pictures) > 5)
        seen = len(stays.pictures)
        await gone.vanish()
        async with Waits() as waits:
            await asyncio.wait_for(peer.closed.wait(), 5)
        assert peer.reason == "silent"
        await gone.close()
        assert [each.reason for each in peers.peers] == [None]
        gaps = np.diff([picture.at for picture in stays.pictures[seen:]])
        assert gaps.max() < 0.040 + 0.150 + waits.longest
        await stays.until(lambda: open_files() <= files, 3)


@remeasured
async def test_s9_who_does_not_have_the_key_of_the_offer_gets_no_word() -> None:
    """Somebody between the two answers the handshake with a certificate of their own."""
    async with hosting(deadlines=Deadlines(first_media=3.0)) as (peers, talk), Client(tone(5)) as client:
        offer = await client.offer()
        forged = re.sub(
            r"(a=fingerprint:sha-256 )(..)", lambda found: found[1] + ("00" if found[2] != "00" else "11"), offer
        )
        forged = re.sub(r"a=fingerprint:sha-(384|512).*\r\n", "", forged)
        assert forged != offer
        answer, peer = await peers.answer(forged, talk)
        await client.accept(answer)
        await asyncio.wait_for(peer.closed.wait(), 8)
        assert peer.reason in ("failed", "never connected")
        assert talk.pushed == []
        assert client.pictures == []
        assert client.sounds == []
