"""Offers as clients send them, and as nobody should."""

import re
import time

import pytest

from engine.offer import OFFER_BYTES_MOST, BadOffer, Role, read_offer
from tests.webrtc_client import Client


async def offer_of(role: str = "duplex") -> str:
    async with Client(role=role) as client:
        return await client.offer()


async def test_the_directions_decide_what_a_connection_is_for() -> None:
    for name, role in (("duplex", Role.DUPLEX), ("whip", Role.WHIP), ("whep", Role.WHEP)):
        assert read_offer(await offer_of(name)).role is role


async def test_a_direction_may_stand_above_all_sections_or_nowhere() -> None:
    sdp = await offer_of("whep")
    bare = sdp.replace("a=recvonly\r\n", "")
    assert read_offer(bare).directions == {"audio": "sendrecv", "video": "sendrecv"}
    above = bare.replace("t=0 0\r\n", "t=0 0\r\na=recvonly\r\n")
    assert read_offer(above).role is Role.WHEP


async def test_p7_candidates_are_taken_out_and_nothing_else() -> None:
    sdp = await offer_of()
    assert "a=candidate:" in sdp
    kept = read_offer(sdp).sdp
    assert "candidate" not in kept
    assert kept == re.sub(r"a=(candidate:|end-of-candidates).*\r\n", "", sdp)
    assert read_offer(sdp.replace("\r\n", "\n")).sdp == kept


async def test_p6_monstrous_offers_are_refused_before_anything_parses_them() -> None:
    sdp = await offer_of()
    section = re.search(r"m=audio.*?(?=m=video)", sdp, re.DOTALL).group(0)
    application = sdp[sdp.index("m=application") :]
    cases = {
        "600 KB": (sdp + section * 500, 413),
        "1 MB of é": ("v=0\r\n" + "é" * 500_000, 413),
        "four sections": (sdp + section, 400),
        "two sounds": (sdp[: sdp.index("m=video")] + section, 400),
        "only data": (sdp[: sdp.index("m=audio")] + application, 400),
        "empty": ("", 400),
        "nul": (sdp.replace("a=mid:0", "a=mid:\0"), 400),
        "json": ('{"sdp": "v=0"}', 400),
        "no opus": (sdp.replace("opus/48000", "opux/48000"), 422),
        "no video codec": (re.sub("(VP8|H264)/90000", "AV1/90000", sdp), 422),
        "ice lite": (sdp.replace("t=0 0\r\n", "t=0 0\r\na=ice-lite\r\n"), 422),
        "message": (sdp.replace("m=video", "m=message"), 400),
    }
    for name, (offer, status) in cases.items():
        began = time.process_time()
        with pytest.raises(BadOffer) as refused:
            read_offer(offer)
        assert refused.value.status == status, name
        assert time.process_time() - began < 0.005, name
    assert len(sdp) < OFFER_BYTES_MOST
