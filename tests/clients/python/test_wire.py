"""The wire as the Python client reads and writes it, by the golden vectors."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients.python import Event, Face, Points, Sampler, wire

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parents[3] / "clients" / "golden.json").read_text())


def reading(names: list[str], visemes: int = 0) -> wire.Reading:
    return wire.Reading({"epoch": 0, "face": {"names": names, "visemes": ["v"] * visemes}})


@pytest.mark.parametrize("vector", GOLDEN["headers"], ids=lambda v: v["name"])
def test_sound_is_packed_as_the_contract_draws_it(vector: dict[str, Any]) -> None:
    assert wire.HEADER.size == GOLDEN["header_bytes"]
    if vector["type"] == wire.AUDIO_IN:
        pcm, end = bytes.fromhex(vector["payload_hex"]), bool(vector["flags"] & wire.SEGMENT_END)
        packed = wire.pack_sound(pcm, vector["seq"], vector["epoch"], int(vector["pts_us"]), end)
        assert packed.hex() == vector["hex"]
    else:
        fields = wire.HEADER.unpack_from(bytes.fromhex(vector["hex"]))
        assert fields[1:3] == (vector["type"], vector["flags"])
        assert fields[7] == int(vector["pts_us"])


@pytest.mark.parametrize("vector", GOLDEN["refused"], ids=lambda v: v["name"])
def test_broken_frames_are_refused(vector: dict[str, Any]) -> None:
    with pytest.raises(wire.WireError):
        reading([]).read(bytes.fromhex(vector["hex"]))


@pytest.mark.parametrize("vector", GOLDEN["faces"], ids=lambda v: v["name"])
def test_faces_are_read(vector: dict[str, Any]) -> None:
    face = reading(vector["names"], vector["viseme_count"]).read(bytes.fromhex(vector["hex"]))
    assert isinstance(face, Face)
    assert face.weights == pytest.approx(dict(zip(vector["names"], vector["weights"], strict=True)))
    for name in ("rotation", "position", "gaze", "visemes"):
        assert getattr(face, name) == pytest.approx(vector[name], abs=1e-6)
    for name in ("epoch", "seq", "speaking", "segment_end"):
        assert getattr(face, name) == vector[name]
    assert face.pts_us == int(vector["pts_us"])
    with pytest.raises(wire.WireError):
        reading([*vector["names"], "more"], vector["viseme_count"]).read(bytes.fromhex(vector["hex"]))


def test_points_are_read() -> None:
    for vector in GOLDEN["points"]:
        points = reading([]).read(bytes.fromhex(vector["hex"]))
        assert isinstance(points, Points)
        assert [list(point) for point in points.points] == vector["points"]


@pytest.mark.parametrize("vector", GOLDEN["slerp"], ids=lambda v: v["name"])
def test_slerp(vector: dict[str, Any]) -> None:
    mixed = wire.slerp(vector["a"], vector["b"], vector["t"])
    assert abs(sum(x * y for x, y in zip(mixed, vector["expect"], strict=True))) == pytest.approx(1, abs=1e-6)


def a_face(pts_us: int, value: float, epoch: int = 0) -> Face:
    return Face(pts_us, epoch, 0, True, ("x",), (value,), (0, 0, 0, 1), (0, 0, 0), (0, 0))


def test_sampling_between_faces() -> None:
    sampler = Sampler()
    assert sampler.at(0) is None
    for vector in GOLDEN["sampling"]["faces"]:
        sampler.push(a_face(vector["pts_us"], vector["value"]))
    for vector in GOLDEN["sampling"]["samples"]:
        face = sampler.at(vector["pts_us"])
        assert face is not None
        assert face.values == pytest.approx((vector["value"],))
    sampler.push(a_face(120_000, 0.9, epoch=1))
    face = sampler.at(0)
    assert face is not None
    assert face.values == (0.9,)  # what came before the interrupt is void


def test_unknown_messages_are_ignored_and_old_epochs_dropped() -> None:
    read = reading([])
    assert read.read(wire.HEADER.pack(wire.MAGIC, 200, 0, 1, 0, 0, 0, 0)) is None
    assert isinstance(read.read('{"type":"from.the.future","x":1}'), Event)
    read.read('{"type":"cleared","epoch":2}')
    old = bytes.fromhex(GOLDEN["faces"][0]["hex"])  # epoch 1
    assert read.read(old) is None
    assert read.stale == 1


def test_numpy_sound_can_be_pushed() -> None:
    """Anything with the buffer protocol, once made bytes, is packed alike."""
    pcm = np.array([1, -2, 3], "<i2")
    assert wire.pack_sound(pcm.tobytes(), 0, 0)[24:] == b"\x01\x00\xfe\xff\x03\x00"
