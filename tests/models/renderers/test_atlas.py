"""LipSync3D's renderer: tables 4 and 5 to the layer, its memory, its light, its chin."""

import torch

from models import face
from models.renderers import Loop
from models.renderers.atlas import CODE, MEMORY, Atlas, AtlasEncoder, TextureDecoder, lit
from models.renderers.unwrap import CROP, POWERS, corner_of_crop
from tests.models.renderers.test_lines import drawn_face

THINNER = 64


def atlas(seed: int = 0) -> Atlas:
    torch.manual_seed(seed)
    renderer = Atlas(thinner=THINNER).eval()
    renderer.texture.reference.copy_(torch.rand(3, CROP, CROP))
    return renderer


def straight() -> torch.Tensor:
    """The polynomials of a patch that is the atlas' crop itself."""
    x, y = corner_of_crop()
    maps = torch.zeros(1, 2, len(POWERS))
    maps[0, 0, POWERS.index((0, 0))], maps[0, 0, POWERS.index((1, 0))] = x + CROP / 2, CROP / 2
    maps[0, 1, POWERS.index((0, 0))], maps[0, 1, POWERS.index((0, 1))] = y + CROP / 2, CROP / 2
    return maps


def features(renderer: Atlas, count: int = 1) -> dict[str, torch.Tensor]:
    torch.manual_seed(5)
    one = torch.ones(count, 1)
    similarity = torch.tensor([[1.0, 0.0, 0.0, 0.0]]).expand(count, 4)
    flat = torch.zeros(count, 8, 8)
    loop = Loop(torch.rand(count, 3, CROP, CROP), similarity, one.expand(-1, 2), flat, flat, flat)
    colour = torch.tensor([[[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]]).expand(count, -1, -1)
    points = drawn_face().expand(count, -1, -1)
    return renderer.dress(loop, straight().expand(count, -1, -1), torch.ones(count, 1, 16, 16), colour, points)


def spoken(lower: float = 0.0) -> torch.Tensor:
    points = torch.cat([drawn_face(), torch.zeros(1, 131, 1)], -1)
    points[:, face.JAW_LINE_IN_HOUSE.tolist(), 1] += lower
    return points


def test_the_decoder_is_table_4() -> None:
    """34 → 16384; 3 × 3 to 512, 256, 128, 64; 5 × 5 to 3; tanh at the end alone."""
    decoder = TextureDecoder()
    shapes = [tuple(p.shape) for n, p in decoder.named_parameters() if n.endswith("weight")]
    assert shapes == [
        *((16384, CODE + MEMORY), (512, 1024, 3, 3), (256, 512, 3, 3), (128, 256, 3, 3), (64, 128, 3, 3)),
        (3, 64, 5, 5),
    ]
    assert sum(p.numel() for p in decoder.parameters()) == 6_846_083
    assert TextureDecoder(thinner=THINNER)(torch.randn(2, 34)).shape == (2, 3, 128, 128)


def test_the_encoder_is_table_5() -> None:
    shapes = [tuple(p.shape) for n, p in AtlasEncoder().named_parameters() if n.endswith("weight")]
    assert shapes == [
        *((128, 3, 5, 5), (256, 128, 5, 5), (512, 256, 5, 5), (1024, 512, 5, 5), (2048, 1024, 5, 5)),
        (MEMORY, 4 * 4 * 2048),
    ]
    code = AtlasEncoder(thinner=THINNER)(torch.rand(2, 3, 128, 128))
    assert code.shape == (2, MEMORY)
    assert code.abs().max() <= 1


def test_what_was_painted_last_is_heard_and_the_beginning_is_black() -> None:
    renderer, code = atlas(), torch.randn(1, CODE)
    rows = features(renderer)
    with torch.no_grad():
        first, _, state = renderer.draw(rows, spoken(), code, renderer.silence(1))
        second, _, _ = renderer.draw(rows, spoken(), code, state)
        torch.testing.assert_close(state[0], renderer.texture(code, torch.zeros(1, 3, CROP, CROP)).clamp(0, 1))
    assert not torch.equal(first, second)


def test_a_session_does_not_depend_on_its_neighbour() -> None:
    renderer, codes = atlas(), torch.randn(2, CODE)
    rows = features(renderer, 2)
    with torch.no_grad():
        both, mask, _ = renderer.draw(rows, spoken().expand(2, -1, -1), codes, renderer.silence(2))
        single = {name: row[1:] for name, row in rows.items()}
        alone, _, _ = renderer.draw(single, spoken(), codes[1:], renderer.silence(1))
    assert mask.shape == (2, 1, CROP, CROP)
    torch.testing.assert_close(both[1:], alone, atol=1e-5, rtol=1e-4)


def test_the_texture_lands_where_the_map_says() -> None:
    renderer = atlas()
    picture = torch.rand(1, 3, CROP, CROP)
    painted, within = renderer.reprojected(picture, straight())
    torch.testing.assert_close(painted, picture, atol=1e-3, rtol=0)
    assert within[0, 0, 0].max() < 0.1 < within[0, 0, CROP // 2, CROP // 2] == 1


def test_told_by_points_it_paints_what_they_say_and_nothing_absurd() -> None:
    torch.manual_seed(0)
    renderer = Atlas(heard=None, thinner=THINNER).eval()
    rows, still = features(renderer), spoken()
    renderer.rest.copy_(still[0, face.HOUSE_SPOKEN, :2])
    torch.testing.assert_close(renderer.told(still[:, face.HOUSE_SPOKEN, :2]), torch.zeros(1, 114))
    assert renderer.told(spoken(9.0)[:, face.HOUSE_SPOKEN, :2]).abs().max() > 0.3
    lost = torch.full_like(still, torch.nan)
    with torch.no_grad():
        code, black = torch.zeros(1, 0), renderer.silence(1)
        shut, none = (renderer.draw(rows, points, code, black)[2][0] for points in (still, lost))
    torch.testing.assert_close(none, shut)


def test_a_texture_takes_on_the_frames_light_in_luma_and_its_colours() -> None:
    even = torch.rand(1, 3, CROP, CROP)
    colour = torch.tensor([[[1.0, 0.9, 0.8], [0.0, 0.01, 0.02]]])
    bright = lit(even, torch.full((1, 1, 16, 16), 1.5), colour)
    luma = (even * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, True)
    expected = (even + 0.5 * luma) * colour[:, 0, :, None, None] + colour[:, 1, :, None, None]
    torch.testing.assert_close(bright, expected)


def test_below_the_new_chin_there_is_neck_and_no_second_chin() -> None:
    """The loop frame has a bright line where its chin is; with a lower jaw the line is lower, and there is one."""
    renderer = atlas()
    rows = features(renderer)
    chin = float(rows["jaw"][0, 8, 1])
    patch = torch.zeros(1, 3, CROP, CROP)
    patch[:, :, round(chin) + 2] = 1
    old, new = rows["jaw"], rows["jaw"] + torch.tensor([0.0, 6.0])
    neck = renderer.neck(patch, old, new)[0, 0, :, round(float(old[0, 8, 0]))]
    assert neck.argmax() == round(chin) + 8
    assert (neck > 0.3).sum() <= 2


def test_the_frame_below_and_beside_the_face_is_the_loops_own() -> None:
    renderer = atlas()
    rows = features(renderer)
    with torch.no_grad():
        patch, mask, _ = renderer.draw(rows, spoken(), torch.randn(1, CODE), renderer.silence(1))
    bottom = int(rows["jaw"][0, :, 1].max()) + 2
    torch.testing.assert_close(patch[:, :, bottom:], rows["patch"][:, :, bottom:], atol=2e-3, rtol=0)
    assert mask[0, 0, 0].max() < 0.1 < mask[0, 0, CROP // 2, CROP // 2]


def test_it_learns_two_mouths_from_two_sounds() -> None:
    torch.manual_seed(0)
    decoder = TextureDecoder(CODE, thinner=32)
    codes, true = torch.eye(2, CODE), torch.tensor([-0.5, 0.5])[:, None, None, None].expand(2, 3, CROP, CROP)
    optimiser = torch.optim.Adam(decoder.parameters(), 1e-2)
    losses = []
    for _ in range(30):
        loss = (decoder(codes) - true).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.4 * losses[0]
