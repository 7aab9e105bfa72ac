"""The seam: whoever writes `look` and `draw` is painted, placed and batched by it."""

import torch
from torch import Tensor

from models.renderers import Features, Loop, Renderer, at
from models.streaming import State
from tests.models.renderers.people import loop, patch, points


class Remembers(Renderer):
    """Paints the brightness of the loop's mouth and, beside it, how often it has painted."""

    def silence(self, batch: int) -> State:
        return (torch.zeros(batch, 1),)

    def look(self, patches: Tensor) -> dict[str, Tensor]:
        return {"bright": patches.mean((2, 3))}

    def draw(self, rows: Features, points: Tensor, code: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        (painted,) = state
        flat = rows["bright"][:, :, None, None].expand(-1, 3, self.size, self.size)
        mask = torch.ones(len(flat), 1, self.size, self.size)
        return flat + painted[:, :, None, None], mask, (painted + 1,)


def frames() -> Loop:
    return loop(patch(128))


def test_rows_are_gathered_by_frame() -> None:
    features = {"a": torch.arange(6.0).reshape(3, 2)}
    assert at(features, torch.tensor([2, 0, 2]))["a"].tolist() == [[4, 5], [0, 1], [4, 5]]


def test_what_is_painted_of_a_frame_is_placed_into_that_frame() -> None:
    renderer, index = Remembers(128), torch.tensor([2, 0])
    features = renderer.prepare(frames())
    made, mask, state = renderer.paint(features, index, points(patch(128), 2), torch.zeros(2, 0), renderer.silence(2))
    assert state[0].tolist() == [[1], [1]]
    torch.testing.assert_close(made[:, :, 0, 0], frames().patches.mean((2, 3))[index])
    placed = renderer.place(features, index, made, mask)
    assert placed.luma.shape == (2, 96, 88)
    assert float(placed.luma[0].std()) < float(frames().luma[2].std())


def test_a_state_goes_on_by_row() -> None:
    renderer, index = Remembers(128), torch.tensor([0, 0])
    features = renderer.prepare(frames())
    where = points(patch(128), 2)
    made, _, _ = renderer.paint(features, index, where, torch.zeros(2, 0), (torch.tensor([[0.0], [5.0]]),))
    torch.testing.assert_close(made[1] - made[0], torch.full_like(made[0], 5.0))


def test_a_renderer_that_remembers_nothing_has_no_state() -> None:
    assert Renderer(128).silence(3) == ()
