"""Every renderer through the seam: any head, landmarks, neighbours; the loop untouched where none is painted."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models import face
from models.renderers import Features, Loop, Renderer, placing
from models.renderers.atlas import Atlas
from models.renderers.facemap import Facemap
from models.renderers.faces import lower_face, whole_face
from models.renderers.prior import Prior
from models.renderers.unwrap import corner_of_crop
from models.runtime.graphs import By, export_named
from models.streaming import State, leaves
from tests.models.renderers.people import patch
from tests.models.renderers.test_heads import FRAMES, head

HEARD = 4
NAMES = ("patch", "atlas", "facemap", "prior")


def narrow(name: str) -> Renderer:
    """One of each, as small as it can be, that has learned nothing."""
    torch.manual_seed(0)
    if name == "patch":
        return patch(128)
    if name == "atlas":
        return Atlas(64, heard=None, thinner=32).eval()
    if name == "facemap":
        return Facemap(64, width=4, halvings=2, blocks=1, attentions=1).eval()
    return Prior(2, 32, 8, HEARD).eval()


def meets(renderer: Renderer, points: np.ndarray, height: int) -> tuple[Features, np.ndarray]:
    """Features of a head [FRAMES, 478, 3] before a picture of noise, and the corner of its rectangles."""
    wide = height * 4 // 3
    size = renderer.size
    whole = isinstance(renderer, (Facemap, Prior))
    mean = whole_face([points], size) if whole else placing.canon([points], size)
    similarity = placing.towards(points, mean)
    hole, mask = lower_face([points], mean, size)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        renderer.face.copy_(torch.from_numpy(mean))  # type: ignore[operator]
        for name, value in (("mask", mask), ("hole", hole), ("spoken", hole)):
            if isinstance(getattr(renderer, name, None), torch.Tensor):
                getattr(renderer, name).copy_(value)
        if hasattr(renderer, "rest"):
            renderer.rest.copy_(torch.from_numpy(mean[face.HOUSE[face.HOUSE_SPOKEN]]))
    if isinstance(renderer, Prior):
        references = torch.rand(2, 3, size, size, generator=draw)
        renderer.meet(references, torch.from_numpy(mean[face.HOUSE]).expand(2, -1, -1), mask)
    shown = torch.ones(size, size) if isinstance(renderer, Atlas) else mask
    high, across, corner = placing.rectangles(shown.numpy(), similarity, wide, height)
    planes = [(high, across), (high // 2, across // 2), (high // 2, across // 2)]
    luma, u, v = (torch.randint(16, 235, (FRAMES, *one), generator=draw).float() for one in planes)
    patches = torch.rand(FRAMES, 3, size, size, generator=draw)
    loop = Loop(patches, torch.from_numpy(similarity), torch.from_numpy(corner).float(), luma, u, v)
    if not isinstance(renderer, Atlas):
        return renderer.prepare(loop), corner
    maps = torch.zeros(FRAMES, 2, 10)  # the crop lies over the patch
    maps[:, 0, 1] = maps[:, 1, 2] = 64
    maps[:, :, 0] = torch.tensor(corner_of_crop()).float() + 64
    colour = torch.tensor([[1.0] * 3, [0.0] * 3]).expand(FRAMES, -1, -1)
    house = placing.apply(placing.inverse(similarity), points[:, face.HOUSE, :2])
    return renderer.dress(loop, maps, torch.ones(FRAMES, 1, 16, 16), colour, torch.from_numpy(house)), corner


def code(renderer: Renderer, batch: int) -> torch.Tensor:
    return torch.randn(batch, HEARD if isinstance(renderer, Prior) else 0, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module", params=NAMES)
def one(request: pytest.FixtureRequest) -> Renderer:
    return narrow(request.param)


@settings(max_examples=4, deadline=None)
@given(
    height=st.sampled_from([360, 480, 720, 1080]),
    share=st.floats(0.28, 0.55),
    yaw=st.floats(-25, 25),
    opening=st.floats(0, 0.12),
)
@torch.no_grad()
def test_any_head_is_painted_and_the_loop_is_untouched_elsewhere(
    one: Renderer, height: int, share: float, yaw: float, opening: float
) -> None:
    """Faces of 100 to 600 pixels, in pictures 360 to 1080 high, turned to either side. Where the mask, laid into the
    rectangle, is 0, what comes out are the loop's own numbers, to the bit."""
    points = head(share * height, height, yaw, opening)
    features, corner = meets(one, points, height)
    index = torch.arange(FRAMES)
    house = torch.from_numpy(points[:, face.HOUSE])
    made, mask, _ = one.paint(features, index, house, code(one, FRAMES), one.silence(FRAMES))
    assert bool(made.isfinite().all())
    assert float(mask.min()) >= 0
    assert float(mask.max()) <= 1
    placed = one.place(features, index, made, mask)
    bare = {name: features[name] for name in ("similarity", "corner")}
    bare |= {name: torch.zeros_like(features[name]) for name in ("luma", "u", "v")}
    black = torch.zeros_like(made)  # luma 16 where the mask is 1, so that its share is read off it
    share_of = one.place(bare, index, black, mask)
    for plane in ("luma", "u", "v"):
        covered, now, before = getattr(share_of, plane) != 0, getattr(placed, plane), features[plane]
        assert 0.05 < float(covered.float().mean()) < 1
        assert bool((now[~covered] == before[~covered]).all())
        assert bool(now.isfinite().all())
    high, wide = features["luma"].shape[1:]
    assert (corner >= 0).all()
    assert (corner + np.array([wide, high]) <= (height * 4 // 3, height)).all()


SPOILT: dict[str, Callable[[torch.Tensor], object]] = {
    "not a number": lambda p: p.fill_(torch.nan),
    "one infinite": lambda p: p[:, 3].fill_(torch.inf),
    "beyond the frame": lambda p: p.add_(5e3),
    "absurd": lambda p: p.mul_(-1e9),
    "shut": lambda p: p[:, 20:40, 1].copy_(p[:, 20:40, 1].mean(1, keepdim=True).expand(-1, 20)),
    "all in one place": lambda p: p.copy_(p[:, :1].expand(-1, p.shape[1], -1).clone()),
    "torn open": lambda p: p[:, 30:57, 1].add_(90),
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT.keys())
@torch.no_grad()
def test_landmarks_of_any_kind_paint_a_defined_picture(one: Renderer, spoil: Callable[[torch.Tensor], object]) -> None:
    """And leave nothing behind: what is painted of good landmarks after them is defined too."""
    points = head(180, 480, 8)
    features, _ = meets(one, points, 480)
    good = torch.from_numpy(points[:1, face.HOUSE])
    bad = good.clone()
    spoil(bad)
    index, state = torch.tensor([1]), one.silence(1)
    for where in (good, bad, bad, good, good, good):
        made, _, state = one.paint(features, index, where, code(one, 1), state)
        assert bool(made.isfinite().all())
        assert 0 <= float(made.min()) <= float(made.max()) <= 1


@settings(max_examples=4, deadline=None)
@given(count=st.integers(2, 4), turn=st.integers(0, 3))
@torch.no_grad()
def test_neighbours_change_nothing(one: Renderer, count: int, turn: int) -> None:
    """Three steps of several sessions, and of one of them alone."""
    points = head(180, 480, -6)
    features, _ = meets(one, points, 480)
    spoken = torch.from_numpy(points[:1, face.HOUSE]).repeat(count, 1, 1)
    spoken[:, 30:57, 1] += 4 * torch.arange(count)[:, None]
    row, heard = turn % count, code(one, count)
    index = torch.arange(count) % FRAMES
    states: list[State] = [one.silence(count), one.silence(1)]
    for step in range(3):
        moved = spoken + step
        together, _, states[0] = one.paint(features, index, moved, heard, states[0])
        alone, _, states[1] = one.paint(
            features, index[row : row + 1], moved[row : row + 1], heard[row : row + 1], states[1]
        )
        torch.testing.assert_close(alone[0], together[row], atol=2e-5, rtol=0)


@pytest.mark.parametrize("by", ["tracing", pytest.param("dynamo", marks=pytest.mark.slow)])
@torch.no_grad()
def test_it_is_one_graph_that_a_runtime_without_torch_computes(one: Renderer, by: By) -> None:
    """Raster, network, warp, blend and state in one ONNX graph of any batch, the same picture out of OpenVINO and, as a
    GPU would compute it, node by node out of torch."""
    pytest.importorskip("openvino")
    from models.runtime.compiled import Compiled
    from models.runtime.interpreted import Interpreted
    from tests.bench.painters import Served

    points = head(180, 480, 8, 0.05)
    features, _ = meets(one, points, 480)
    one.requires_grad_(False)
    house, heard = torch.from_numpy(points[:, face.HOUSE]), code(one, FRAMES)
    state = leaves(one.silence(FRAMES))
    given = {"points": house, "code": heard}
    given |= {f"frame_{name}": row for name, row in features.items()}
    given |= {f"state_{n}": torch.zeros_like(leaf) for n, leaf in enumerate(state)}
    names = ["luma", "u", "v", *(f"after_{n}" for n in range(len(state)))]
    served = Served(one, tuple(features))
    graph = export_named(served, given, names, halve_weights=False, by=by)
    for rows in (slice(0, 1), slice(0, 2)):
        compiled = Compiled(graph, [rows.stop], "f32")
        said = compiled({name: row[rows].numpy() for name, row in given.items() if name in compiled.asks})
        wanted = served(*(row[rows] for row in given.values()))
        recorded = Interpreted(graph)({name: row[rows] for name, row in given.items() if name in compiled.asks})
        for name, tensor in zip(names, wanted, strict=True):
            np.testing.assert_allclose(said[name], tensor.numpy(), atol=0.1, err_msg=name)
            np.testing.assert_allclose(recorded[name].numpy(), tensor.numpy(), atol=0.1, err_msg=name)
