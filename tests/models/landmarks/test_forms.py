"""The faithful layers hear the whole utterance; both forms answer in the same shapes."""

import torch

from models.landmarks.forms import FAITHFUL, FORMS, STREAMING, OverTime


def test_both_forms_answer_alike() -> None:
    x = torch.randn(2, 9, 6)
    for form in FORMS.values():
        recurrent, conv = form.recurrent(6, 4, 2, 0.0), form.conv(6, 5, 3, 2)
        assert recurrent(x, recurrent.silence(2))[0].shape == (2, 9, 4 * form.directions)
        assert conv(x, conv.silence(2))[0].shape == (2, 9, 5)
        assert form.norm(6)(x).shape == x.shape


def test_a_row_before_the_utterance_is_heard_and_not_answered() -> None:
    layer = FAITHFUL.recurrent(6, 4, 1, 0.0)
    row, x = torch.randn(2, 1, 6), torch.randn(2, 9, 6)
    _, state = layer(row, layer.silence(2))
    y, _ = layer(x, state)
    assert y.shape == (2, 9, 8)
    assert not torch.allclose(y, layer(x, layer.silence(2))[0])


def test_a_centred_convolution_sees_as_far_ahead_as_back() -> None:
    conv = FAITHFUL.conv(1, 1, 3, 2)
    x = torch.zeros(1, 9, 1)
    base, _ = conv(x, ())
    x[0, 4] = 1.0
    touched = (conv(x, ())[0] - base).abs().squeeze() > 1e-9
    assert touched.nonzero().flatten().tolist() == [2, 4, 6]


def test_norm_over_time_pools_sessions_and_steps() -> None:
    x = 3 + 2 * torch.randn(4, 50, 6)
    y = OverTime(6)(x)
    torch.testing.assert_close(y.mean((0, 1)), torch.zeros(6), rtol=0, atol=1e-5)
    assert STREAMING.directions != FAITHFUL.directions
