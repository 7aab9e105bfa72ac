"""Pictures over the socket."""

import io

import av
import numpy as np
import pytest

from engine.protocol.frames import Flag, Kind
from tests.engine.websocket.visit import Place, frames


@pytest.mark.parametrize(("codec", "decoder"), [("jpeg", "mjpeg"), ("h264", "h264")])
async def test_pictures_for_those_who_ask(place: Place, codec: str, decoder: str) -> None:
    async with place.talk(video={"codec": codec}) as (client, _):
        first, *_ = shown = await frames(client, Kind.VIDEO, 3)
        assert first.flags & Flag.KEYFRAME
        context = av.CodecContext.create(decoder, "r")
        pictures = [p for frame in shown for p in context.decode(av.Packet(frame.payload))] + context.decode(None)
        assert [(picture.width, picture.height) for picture in pictures] == [(64, 64)] * 3
        (card,) = place.worker.cards.values()
        y = card.loop[0, :16, :16].astype(float)  # outside of what is painted
        shown_y = np.clip((y - 16) * 255 / 219, 0, 255) if codec == "jpeg" else y  # JPEG has the full range
        assert pictures[0].to_ndarray()[:16, :16].mean() == pytest.approx(shown_y.mean(), abs=2)
    await place.gone()


async def test_a_jpeg_is_a_file(place: Place) -> None:
    async with place.talk(video={"codec": "jpeg"}) as (client, _):
        (frame,) = await frames(client, Kind.VIDEO, 1)
        with av.open(io.BytesIO(frame.payload), format="jpeg_pipe") as file:
            assert file.streams.video[0].width == 64
