"""What the seam promises, kept by every backend: the GPU's, on a device of the tests that records as CUDA graphs do."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models import face
from models.runtime import Out, Row, Runtime, Wants, builder, eager, graphed, openvino, tensorrt
from models.runtime.cache import EngineCache
from models.runtime.hearing import FAINT
from models.voice import Lips, VoiceEncoder
from tests.models.runtime import faketrt
from tests.models.runtime.drawn import draw_package
from tests.models.runtime.packed import pack
from tests.models.runtime.recording import RecordingDevice
from tests.models.runtime.taught import loudness, teach_package
from tests.models.runtime.voices import babble

pytestmark = pytest.mark.timeout(400)  # four backends are opened, proven and recorded: seconds, but for a busy machine

ALL = Wants.POINTS | Wants.FACE | Wants.PICTURE
SLOTS = 5
STEPS = 6
AVATARS = ("ellipse", "net", "painted")
"""Mouths from a shelf; networks of its own; mouths from a shelf of which a learned painter paints what they say."""

Open = Callable[[], Runtime]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("packages")
    return [draw_package(folder / "ellipse"), teach_package(folder / "net"), pack(folder / "painted", "painted")]


@pytest.fixture(scope="module", params=["eager", "openvino", "graphed", "tensorrt"])
def opener(
    request: pytest.FixtureRequest, packages: list[Path], voice: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Open]:
    lips = voice / "lips.onnx"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builder, "library", lambda: faketrt)
        patch.setattr("torch.cuda.is_available", lambda: request.param == "tensorrt")
        patch.setattr("torch.cuda.get_device_capability", lambda: (9, 0))
        patch.setattr("torch.cuda.get_device_name", lambda: "a fake")
        cache = EngineCache(tmp_path_factory.mktemp("cache") / "engines")

        def on_tensorrt() -> Runtime:
            device = RecordingDevice()
            return tensorrt.open_with(cache, packages, SLOTS, None, lips, building=True, device=device)

        yield {
            "eager": lambda: eager.open(packages, SLOTS, voice=voice / "voice.safetensors"),
            "openvino": lambda: openvino.open(packages, SLOTS, lips=lips),
            "graphed": lambda: graphed.open_on(RecordingDevice(), packages, SLOTS, None, lips),
            "tensorrt": on_tensorrt,
        }[request.param]


@pytest.fixture(scope="module")
def runtime(opener: Open) -> Iterator[Runtime]:
    runtime = opener()
    yield runtime
    runtime.close()


@pytest.fixture(scope="module")
def fresh(opener: Open) -> Iterator[Runtime]:
    """One that nobody has used but in batches of one, and in no slot twice, until padding is looked at."""
    runtime = opener()
    yield runtime
    runtime.close()


def row(avatar: str, slot: int, sound: np.ndarray, n: int) -> Row:
    return Row(slot, 1, n == 0, avatar, sound[n], n, ALL)


def alone(runtime: Runtime, avatar: str, sound: np.ndarray, slot: int = 0) -> list[Out]:
    return [runtime.step([row(avatar, slot, sound, n)])[0] for n in range(len(sound))]


def near(one: Out, other: Out) -> bool:
    assert one.roi is not None
    assert other.roi is not None
    assert one.face is not None
    assert other.face is not None
    picture = np.abs(one.roi.luma.astype(int) - other.roi.luma).max()
    corner = (one.roi.x, one.roi.y) == (other.roi.x, other.roi.y)
    return bool(corner and picture <= 1 and np.abs(one.face - other.face).max() < 1e-4)


def same(one: Out, other: Out) -> bool:
    assert one.roi is not None
    assert other.roi is not None
    assert one.points is not None
    picture = (one.roi.luma == other.roi.luma).all() and (one.roi.u == other.roi.u).all()
    return bool(picture and np.array_equal(one.face, other.face) and np.array_equal(one.points, other.points))


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    order=st.permutations(range(SLOTS)), late=st.integers(0, 3), kinds=st.tuples(*[st.sampled_from(AVATARS)] * SLOTS)
)
def test_neighbours_slots_and_the_size_of_a_batch_change_nothing(
    runtime: Runtime, order: list[int], late: int, kinds: tuple[str, ...]
) -> None:
    sounds = [babble(STEPS, s) for s in range(SLOTS)]
    together: list[list[Out]] = [[] for _ in range(SLOTS)]
    for now in range(STEPS + late):
        due = [s for s in range(SLOTS) if 0 <= now - (late if s % 2 else 0) < STEPS]
        rows = [row(kinds[s], order[s], sounds[s], now - (late if s % 2 else 0)) for s in due]
        for s, out in zip(due, runtime.step(rows), strict=True):
            assert (out.slot, out.generation) == (order[s], 1)
            together[s].append(out)
    for s in (0, 2, 3):
        assert all(near(*pair) for pair in zip(together[s], alone(runtime, kinds[s], sounds[s]), strict=True))


@pytest.mark.parametrize("avatar", AVATARS)
def test_a_reused_slot_answers_as_a_fresh_runtime_does_to_the_bit(
    runtime: Runtime, fresh: Runtime, avatar: str
) -> None:
    alone(runtime, avatar, babble(STEPS, 9), slot=3)
    sound, other = babble(STEPS, 4), AVATARS.index(avatar)
    for used, new in zip(alone(runtime, avatar, sound, slot=3), alone(fresh, avatar, sound, slot=other), strict=True):
        assert same(used, new)


@pytest.mark.parametrize("avatar", AVATARS)
def test_every_backend_answers_as_the_reference_does(
    runtime: Runtime, avatar: str, reference: dict[str, list[Out]]
) -> None:
    for ours, theirs in zip(alone(runtime, avatar, babble(STEPS, 2)), reference[avatar], strict=True):
        assert ours.face is not None
        assert theirs.face is not None
        np.testing.assert_allclose(ours.face, theirs.face, atol=2e-3)
        assert ours.roi is not None
        assert theirs.roi is not None
        assert np.abs(ours.roi.luma.astype(int) - theirs.roi.luma).max() <= 6


@pytest.fixture(scope="module")
def reference(packages: list[Path], voice: Path) -> dict[str, list[Out]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.cuda.is_available", lambda: False)  # whatever the backend under test is told
        runtime = eager.open(packages, SLOTS, voice=voice / "voice.safetensors")
    return {avatar: alone(runtime, avatar, babble(STEPS, 2)) for avatar in AVATARS}


@pytest.mark.parametrize("avatar", AVATARS)
def test_streaming_equals_the_whole(runtime: Runtime, avatar: str, encoder: VoiceEncoder) -> None:
    """40 ms at a time, in a slot among others that come and go, against the network given everything at once."""
    sound, neighbour = babble(2 * STEPS, 7), babble(2 * STEPS, 8)
    streamed = []
    for n in range(2 * STEPS):
        others = [row(AVATARS[s % 3], s, neighbour, n) for s in range(n % 3)]
        streamed.append(runtime.step([*others, row(avatar, 4, sound, n)])[-1])
    if avatar == "net":
        for out, loud in zip(streamed, loudness(sound), strict=True):
            np.testing.assert_allclose(out.face, loud, atol=1e-4)
        return
    lips, ahead = Lips(encoder), runtime.cards[avatar].lookahead
    with torch.inference_mode():
        whole, _ = lips(torch.from_numpy(sound.reshape(1, -1)), lips.silence(1))
    expected = np.clip((whole[0, :, ahead].numpy() - FAINT) / (1 - FAINT), 0, 1)
    spoken = [name.startswith("mouth") for name in face.ARKIT_52]
    for n, out in enumerate(streamed):
        assert out.face is not None
        np.testing.assert_allclose(out.face[:52][spoken], expected[n][spoken] if n >= ahead else 0, atol=1e-4)


def test_padding_is_inert(runtime: Runtime, fresh: Runtime) -> None:
    """Three rows in a batch of four, after a batch of four that left wild numbers in the fourth: to the bit what a
    runtime answers whose fourth row was never used."""
    wild = np.full((1, 640), 1e30, np.float32)
    for avatar in AVATARS:
        runtime.step([row(avatar, s, wild, 0) for s in range(4)])
        for n in range(3):
            rows = [row(avatar, s, babble(3, s), n) for s in range(3)]
            assert all(same(*pair) for pair in zip(runtime.step(rows), fresh.step(rows), strict=True))


def test_a_poisoned_neighbour_harms_nobody(runtime: Runtime) -> None:
    sound, poison = babble(STEPS, 1), np.full((STEPS, 640), np.nan, np.float32)
    poison[::2] = 1e30
    outs = [
        runtime.step([row(a, s, poison if s else sound, n) for s, a in enumerate(("net", "net", "ellipse"))])[0]
        for n in range(STEPS)
    ]
    assert all(near(*pair) for pair in zip(outs, alone(runtime, "net", sound), strict=True))


def test_what_nobody_wants_is_not_answered(runtime: Runtime) -> None:
    sound = babble(1, 0)[0]
    rows = [
        Row(s, 1, True, a, sound, 0, w)
        for s, (a, w) in enumerate((a, w) for a in AVATARS[:2] for w in (Wants.FACE, Wants.NOTHING))
    ]
    for asked, out in zip(rows, runtime.step(rows), strict=True):
        assert (out.face is None) == (Wants.FACE not in asked.wants)
        assert out.roi is None
        assert out.points is None
