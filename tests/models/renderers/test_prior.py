"""IP-LAP's renderer: its shape, its references, its two frames of future, and that it can learn a mouth."""

import torch

from models.renderers import Loop
from models.renderers.lines import PLANES, lines
from models.renderers.prior import AHEAD, SKETCHES, Prior, gathered
from tests.models.renderers.test_lines import drawn_face

SIZE, WIDTH = 32, 8


def prior(references: int = 2, heard: int | None = 16, seed: int = 0) -> Prior:
    torch.manual_seed(seed)
    renderer = Prior(references, SIZE, WIDTH, heard).eval()
    for layer in (renderer.align.field, renderer.align.worth):
        torch.nn.init.normal_(layer.weight, std=0.2)
    renderer.meet(torch.rand(references, 3, SIZE, SIZE), faces(references), torch.ones(SIZE, SIZE))
    return renderer


def faces(count: int) -> torch.Tensor:
    """[count, 131, 3] in patch pixels: mouths that go down and down."""
    points = torch.cat([drawn_face() * SIZE / 128] * count)
    points[:, :41, 1] += torch.arange(count)[:, None].float()
    return torch.cat([points, torch.zeros_like(points[..., :1])], -1)


def rows(count: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    return {
        "hidden": torch.rand(count, 3, SIZE, SIZE),
        "similarity": torch.tensor([[1.0, 0.0, 0.0, 0.0]] * count),
    }


def test_the_future_it_needs_is_declared_and_waited_for() -> None:
    """The answer to the step n is about the points of n − 2: the two after them are its future."""
    assert Prior.lookahead == AHEAD == (SKETCHES - 1) // 2
    renderer, spoken, heard = prior(), faces(6), torch.randn(6, 16)
    state = renderer.silence(1)
    with torch.no_grad():
        for n in range(6):
            patch, _, state = renderer.draw(rows(1), spoken[n : n + 1], heard[n : n + 1], state)
        target = lines(spoken[1:6], SIZE).flatten(0, 1)[None]
        parts = tuple(part[None] for part in (renderer.pictures, renderer.fine, renderer.coarse))
        whole, _ = renderer.paint_by(parts, rows(1)["hidden"], target, heard[3:4])  # type: ignore[arg-type]
    torch.testing.assert_close(patch, whole)


def test_a_session_does_not_depend_on_its_neighbour() -> None:
    renderer, spoken, heard = prior(), faces(4), torch.randn(4, 16)
    with torch.no_grad():
        together, _, _ = renderer.draw(rows(2), spoken[[0, 3]], heard[:2], renderer.silence(2))
        alone = {name: row[1:] for name, row in rows(2).items()}
        single, _, _ = renderer.draw(alone, spoken[3:4], heard[1:2], renderer.silence(1))
    torch.testing.assert_close(together[1:], single, atol=1e-5, rtol=1e-4)


def test_the_first_pictures_are_as_if_the_face_had_always_been_so() -> None:
    renderer, still = prior(), faces(1)
    state, painted = renderer.silence(1), []
    with torch.no_grad():
        for _ in range(4):
            patch, _, state = renderer.draw(rows(1), still, torch.zeros(1, 16), state)
            painted.append(patch)
    assert painted[0].isfinite().all()
    torch.testing.assert_close(painted[0], painted[-1])


def test_sketches_are_heard_once_for_all_references_and_nothing_changes() -> None:
    align, target = prior(3).align, torch.rand(2, SKETCHES * PLANES, SIZE, SIZE)
    coarse = torch.randn(2, 3, 4 * WIDTH, SIZE // 2, SIZE // 2)
    with torch.no_grad():
        fields, _ = align(coarse, align.listen(target))
        for number in range(3):
            alone, _ = align(coarse[:, number : number + 1], align.listen(target))
            torch.testing.assert_close(fields[:, number : number + 1], alone, atol=1e-5, rtol=1e-4)


def test_references_share_every_pixel_among_them_and_their_order_is_nothing() -> None:
    renderer, target = prior(3), torch.rand(1, SKETCHES * PLANES, SIZE, SIZE)
    parts = [part[None] for part in (renderer.pictures, renderer.fine, renderer.coarse)]
    with torch.no_grad():
        _, weights = renderer.align(parts[2], renderer.align.listen(target))
        torch.testing.assert_close(weights.sum(1), torch.ones(1, 1, SIZE, SIZE))
        order = [part[:, [2, 0, 1]] for part in parts]
        a = renderer.paint_by(tuple(parts), rows(1)["hidden"], target, torch.zeros(1, 16))[0]  # type: ignore[arg-type]
        b = renderer.paint_by(tuple(order), rows(1)["hidden"], target, torch.zeros(1, 16))[0]  # type: ignore[arg-type]
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_only_the_lower_half_of_the_loops_face_is_hidden() -> None:
    patches = torch.rand(2, 3, SIZE, SIZE)
    one = torch.ones(2, 1)
    loop = Loop(patches, one.expand(2, 4), one.expand(2, 2), *(torch.zeros(2, 8, 8) for _ in range(3)))
    hidden = prior().prepare(loop)["hidden"]
    torch.testing.assert_close(hidden[:, :, : SIZE // 2], patches[:, :, : SIZE // 2])
    assert hidden[:, :, SIZE // 2 :].abs().max() == 0


def test_the_published_sound_encoder_hears_16_columns_of_80_bands() -> None:
    renderer = prior(heard=None)
    with torch.no_grad():
        patch, _, _ = renderer.draw(rows(1), faces(1), torch.rand(1, 1280), renderer.silence(1))
    assert patch.shape == (1, 3, SIZE, SIZE)


def test_it_learns_to_move_a_reference_to_where_the_sketch_is() -> None:
    """One reference picture, shifted with the sketch by two pixels: the field must follow it."""
    torch.manual_seed(0)
    renderer = Prior(1, SIZE, WIDTH, 16)
    across = torch.linspace(0, 12, SIZE).sin()
    picture = (0.5 + 0.5 * across * across[:, None]).expand(1, 3, SIZE, SIZE).contiguous()
    moved_by_two = faces(1) + torch.tensor([2.0, 0.0, 0.0])
    sketches = [lines(points, SIZE) for points in (faces(1), moved_by_two)]
    target = sketches[1].repeat(1, SKETCHES, 1, 1)
    optimiser = torch.optim.Adam(renderer.align.parameters(), 3e-3)
    losses = []
    for _ in range(40):
        coarse = renderer.align.encode(picture, sketches[0])[1][None]
        fields, weights = renderer.align(coarse, renderer.align.listen(target))
        loss = (gathered(picture[None], fields, weights) - picture.roll(2, -1)).abs()[..., 3:-3].mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.3 * losses[0]


def test_the_face_begins_as_the_warped_picture_in_the_light_of_the_loop() -> None:
    """So tone is known from the start; and it stays known, since nothing normalises after it."""
    torch.manual_seed(0)
    renderer = Prior(1, SIZE, WIDTH, 16).eval()
    picture = torch.rand(1, 3, SIZE, SIZE) * 0.4 + 0.2
    parts = tuple(part[None] for part in (picture, *renderer.align.encode(picture, lines(faces(1), SIZE))))
    target = lines(faces(1), SIZE).repeat(1, SKETCHES, 1, 1)
    with torch.no_grad():
        made = [renderer.paint_by(parts, gain * picture, target, torch.zeros(1, 16))[0] for gain in (1.0, 1.5)]
    assert (made[0] - picture).abs().mean() < 0.08
    gained = (made[1].mean((-2, -1)) - made[0].mean((-2, -1))) / (0.5 * picture.mean((-2, -1)))
    assert ((gained > 0.7) & (gained < 1.2)).all()
