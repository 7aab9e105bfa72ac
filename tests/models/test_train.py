"""A made person learns to speak in seconds; a killed run goes on as if it had not been."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from models import face, metrics, train
from models.landmarks.lipsync3d import LipSync3d
from models.landmarks.transformer import Transformer
from models.rates import CHUNK
from models.train import Clip, Config, Trainer

from .faces import speaking, turned


def clip(seed: int, frames: int = 60) -> Clip:
    """Someone whose loudness is the opening of the mouth, and whose head turns as it likes."""
    rng = np.random.default_rng(seed)
    wave = np.convolve(rng.normal(size=frames + 8), np.hanning(9) / 2, "valid")[:frames]
    openings = 8 + 8 * wave.clip(-1, 1)
    swing = 12 * np.sin(np.arange(frames) / 13 + rng.uniform(0, 6))
    points = turned(speaking(openings), swing, 1.2, (30 * rng.normal(), 0)).astype(np.float32)
    loudness = np.repeat(10 ** (openings / 8 - 2.5), CHUNK)
    audio = (loudness * rng.normal(size=frames * CHUNK)).astype(np.float32)
    return Clip(f"clip{seed}", points, audio, np.ones(frames, bool))


CLIPS = [clip(seed) for seed in range(8)]


def config(tmp_path: Path, **changes: object) -> Config:
    usual = {"steps": 60, "batch": 6, "frames": 50, "partners": 3, "checkpoint_every": 1000, "rate": 4e-3}
    return Config(clips=tmp_path, out=tmp_path / "out", **{**usual, **changes})  # type: ignore[arg-type]


def trained(settings: Config) -> Trainer:
    trainer = Trainer(settings, CLIPS[:6], device="cpu")
    for _ in trainer.run():
        pass
    return trainer


def test_the_default_head_learns_a_mouth_in_seconds(tmp_path: Path) -> None:
    trainer = trained(config(tmp_path))
    assert np.mean(trainer.curve[-10:]) < 0.4 * np.mean(trainer.curve[:5])
    table = train.scores(trainer, CLIPS[6:])
    assert table["other clip"]["opening_r"] > 0.9
    assert table["other clip"]["ld"] < 0.6 * table["static mouth"]["ld"]
    assert abs(table["other clip"]["sync_ms"]) < 20
    for key in ("ld", "lvd", "opening_r"):  # it hears no pose: whose head it speaks in is all one
        assert table["own clip"][key] == pytest.approx(table["other clip"][key], abs=1e-3)
    assert table["static mouth"]["opening_r"] == 0.0
    assert np.isnan(table["static mouth"]["sync_ms"])
    assert train.motion_in_silence(trainer, CLIPS[6:]) < 0.25 * table["other clip"]["lvd"] + 0.05
    trainer.draw_curve(tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 5000


HEARING = {
    "pose_lstm": "mel40",
    "pose_tcn": "fbank26",
    "transformer": "mel",
    "speech_to_landmarks": "mel-mean",
    "lipsync3d": "spectrum",
}
STEPS = {"speech_to_landmarks": 250, "transformer": 120}
SLOW = [
    pytest.param(system, form, marks=pytest.mark.slow)
    for system, form in itertools.product(HEARING, ("streaming", "faithful"))
    if (system, form) != ("pose_lstm", "streaming")
]
SMALL = {
    "transformer": lambda heard, form, k: Transformer(heard.width, form, k, width=64, blocks=1, channels=(4, 4, 6, 8)),
    "lipsync3d": lambda heard, form, k: LipSync3d(heard.width, form, k, channels=(8, 8, 8, 12, 12, 16)),
}


@pytest.mark.parametrize(("system", "form"), [("pose_lstm", "streaming"), *SLOW])
def test_every_system_beats_the_static_mouth(
    tmp_path: Path, system: str, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if system in SMALL:
        monkeypatch.setitem(train.SYSTEMS, system, SMALL[system])
    trainer = trained(config(tmp_path, system=system, form=form, hearing=HEARING[system], steps=STEPS.get(system, 60)))
    table = train.scores(trainer, CLIPS[6:])
    assert table["other clip"]["opening_r"] > 0.85
    assert table["other clip"]["ld"] < 0.7 * table["static mouth"]["ld"]


def test_a_killed_run_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    settings = config(tmp_path, steps=6)
    whole = trained(settings)
    first = Trainer(settings, CLIPS[:6], device="cpu")
    for _ in range(3):
        first.step()
    first.save()
    again = Trainer(settings, CLIPS[:6], device="cpu")
    assert again.resume()
    assert again.at == 3
    while not again.done:
        again.step()
    for name, tensor in whole.network.state_dict().items():
        torch.testing.assert_close(again.network.state_dict()[name], tensor, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(again.curve, whole.curve, rtol=1e-4)


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    Trainer(config(tmp_path), CLIPS[:2], device="cpu").save()
    longer = Trainer(config(tmp_path, steps=999), CLIPS[:2], device="cpu")
    assert longer.resume()
    with pytest.raises(ValueError, match="lookahead differ"):
        Trainer(config(tmp_path, lookahead=3), CLIPS[:2], device="cpu").resume()
    assert not Trainer(config(tmp_path / "elsewhere"), CLIPS[:2], device="cpu").resume()


def test_a_checkpoint_of_another_pose_normal_space_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained(config(tmp_path, steps=1))
    monkeypatch.setattr(face, "RIGID", face.DLIB)  # as a version with other rigid points has it
    with pytest.raises(ValueError, match="another face"):
        Trainer(config(tmp_path, steps=1), CLIPS[:6], device="cpu").resume()


def test_the_command_trains_scores_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for one in CLIPS[:4]:
        np.savez(tmp_path / f"{one.name}.npz", points=one.points, audio=one.audio, fps=25, source="made")
    (tmp_path / "run.toml").write_text('clips = "."\nout = "out"\nsteps = 3\nbatch = 2\nheld_out = 2\npartners = 1\n')
    train.main([str(tmp_path / "run.toml")])
    assert "static mouth" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "checkpoint.safetensors",
        "scores.json",
        "curve.png",
    }


@pytest.mark.slow
def test_two_processes_share_their_gradients(tmp_path: Path) -> None:
    for one in CLIPS[:4]:
        np.savez(tmp_path / f"{one.name}.npz", points=one.points, audio=one.audio, fps=25, source="made")
    (tmp_path / "run.toml").write_text('clips = "."\nout = "out"\nsteps = 3\nbatch = 2\nheld_out = 1\n')
    command = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--master-addr=127.0.0.1", "--master-port=0"]
    run = [sys.executable, *command, "-m", "models.train", str(tmp_path / "run.toml")]
    subprocess.run(run, check=True, timeout=110, env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""})
    assert (tmp_path / "out" / "scores.json").exists()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('clips = "."\nout = "o"\nsistem = "head"', "unknown key sistem"),
        ('clips = "."\nout = "o"\nsystem = "nobody"', "is none of head"),
    ],
)
def test_a_mistaken_config_is_named(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "run.toml").write_text(text)
    with pytest.raises(ValueError, match=says):
        Config.read(tmp_path / "run.toml")


def test_clips_that_cannot_teach_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="liveface track"):
        train.read_clips(tmp_path)
    lost = CLIPS[0].points.copy()
    lost[5] = np.nan
    np.savez(tmp_path / "a.npz", points=lost, audio=CLIPS[0].audio, fps=25, source="made")
    with pytest.raises(ValueError, match="lost"):
        train.read_clips(tmp_path)
    np.savez(tmp_path / "a.npz", points=CLIPS[0].points, audio=CLIPS[0].audio, fps=30, source="made")
    with pytest.raises(ValueError, match="25"):
        train.read_clips(tmp_path)


def test_short_sound_is_filled_with_silence() -> None:
    short = Clip("short", CLIPS[0].points, CLIPS[0].audio[: 50 * CHUNK]).cut(0, 60)
    assert len(short.audio) == 60 * CHUNK
    assert not short.audio[50 * CHUNK :].any()


def test_a_paced_clip_keeps_lips_and_sound_together() -> None:
    """A click in every frame in which the mouth is open, at half the pace and half a frame later."""
    openings = np.where(np.arange(40) % 10 == 5, 12.0, 0.0)
    audio = np.zeros(40 * CHUNK, np.float32)
    audio[(np.flatnonzero(openings) * CHUNK)] = 1.0
    said = Clip("clicks", speaking(openings).astype(np.float32), audio, openings > 0).paced(0.5, 0.5)
    assert len(said.points) == 78
    assert len(said.audio) == 78 * CHUNK
    gap = np.linalg.norm(said.points[:, face.INNER_UPPER] - said.points[:, face.INNER_LOWER], axis=-1)
    open_at = np.flatnonzero((gap[1:-1] > gap[:-2]) & (gap[1:-1] >= gap[2:]) & (gap[1:-1] > 1)) + 1
    clicks = np.flatnonzero(said.audio > 0.4) / CHUNK
    assert len(open_at) == 4
    assert all(np.abs(clicks - frame).min() < 0.01 for frame in open_at)


def test_copies_are_lessons_and_no_clips(tmp_path: Path) -> None:
    trainer = Trainer(config(tmp_path, copies=2, system="pose_lstm", hearing="mel40", batch=2), CLIPS[:3], device="cpu")
    assert (len(trainer.clips), len(trainer.lessons)) == (3, 9)
    assert {len(heads) for heads in trainer.partners} == {3}
    assert np.isfinite(trainer.step())
    again = Trainer(trainer.config, CLIPS[:3], device="cpu")
    np.testing.assert_array_equal(again.lessons[-1].points, trainer.lessons[-1].points)


def test_half_precision_learns_what_whole_precision_learns(tmp_path: Path) -> None:
    """Two steps of the first paper's network, whose points must not be rounded."""
    settings = {"steps": 2, "system": "pose_lstm", "hearing": "mel40", "batch": 2, "frames": 20}
    whole, half = (trained(config(tmp_path / str(half), half=half, **settings)).curve for half in (False, True))
    np.testing.assert_allclose(half, whole, rtol=0.02)


def test_the_mean_face_is_level_and_a_hundred_wide() -> None:
    mesh = train.mean_face(CLIPS[:3])
    right, left = (mesh[index] for index in face.EYE_CORNERS)
    assert np.linalg.norm(right - left) == pytest.approx(100.0)
    seen = metrics.pose_normal(CLIPS[0].points, mesh)(CLIPS[0].points)
    assert np.linalg.norm(seen[:, face.RIGID] - mesh[face.RIGID], axis=-1).mean() < 1.0


def test_looking_ahead_shifts_what_is_asked() -> None:
    conditions = train.conditions_of(CLIPS[0].points[:10], train.mean_face(CLIPS[:1]))
    later = train.late(conditions, 2)
    assert later.upper.shape[1] == 12
    torch.testing.assert_close(later.upper[:, 2:], conditions.upper)
    torch.testing.assert_close(later.upper[:, 0], conditions.upper[:, 0])


@pytest.mark.parametrize(
    ("system", "form", "begins"),
    [
        ("speech_to_landmarks", "streaming", "at rest"),
        ("speech_to_landmarks", "faithful", "at rest"),
        ("pose_lstm", "streaming", "at rest"),
        ("pose_lstm", "faithful", "as the clip does"),
    ],
)
def test_the_face_begun_with_is_the_same_in_training_and_in_scoring(
    system: str, form: str, begins: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(tmp_path, system=system, form=form, hearing=HEARING[system], batch=2)
    trainer = Trainer(settings, CLIPS[:6], device="cpu")
    began: list[torch.Tensor] = []
    begin = trainer.network.begin
    monkeypatch.setattr(trainer.network, "begin", lambda identity: (began.append(identity), begin(identity))[1])
    trainer.step()
    train.perform(trainer, CLIPS[0])
    taught, scored = began
    if begins == "at rest":
        at_rest = torch.tensor(trainer.mesh[face.HOUSE], dtype=torch.float32).flatten()
        assert torch.equal(taught, at_rest.expand_as(taught))
        assert torch.equal(scored, at_rest.expand_as(scored))
    else:
        first = metrics.pose_normal(CLIPS[0].points, trainer.mesh)(CLIPS[0].points)[0, face.HOUSE]
        np.testing.assert_allclose(scored[0].numpy(), first.flatten(), atol=1e-3)
        assert not torch.equal(taught[0], taught[1])
