import torch

from models.studio.presenter.background import room


def test_the_room_is_soft_and_dimmer_than_a_face():
    v, u = torch.meshgrid(torch.linspace(1, -1, 256), torch.linspace(-1, 1, 256), indexing="ij")
    picture = room(u.flatten(), v.flatten()).view(3, 256, 256)
    assert 0 <= float(picture.min()) <= float(picture.max()) < 1.0
    assert float((picture[:, :, 1:] - picture[:, :, :-1]).abs().max()) < 0.05, "an edge would draw the eye"
