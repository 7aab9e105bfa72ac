"""A presenter's film, small and short and drawn by a stand-in; what it promises holds at any size."""

import hashlib
import shutil
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from models import face
from models.studio import record, speech
from models.studio.articulation import Phone
from models.studio.presenter import Crop, Picture, Presenter
from models.studio.presenter.rig import Pose
from models.studio.speech import Utterance

SECONDS = 4.0


@pytest.fixture(autouse=True)
def _voice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who says "mama" in any voice."""

    def mama(text: str, voice: str) -> Utterance:
        names = ("m", "aa", "m", "aa")
        sound = np.sin(np.arange(16_000 * 6 // 10) * 0.06).astype(np.float32)
        return Utterance(voice, text, sound, tuple(Phone(n, i * 0.15, (i + 1) * 0.15) for i, n in enumerate(names)))

    monkeypatch.setattr(record, "say", mama)


@pytest.fixture
def painted(monkeypatch: pytest.MonkeyPatch) -> list[Crop]:
    """Pictures as grey as the jaw is open, and which were drawn."""
    drawn: list[Crop] = []

    def pictures(self: Presenter, pose: Pose, size: int = 512, crop: Crop | None = None) -> Picture:
        crop = crop or Crop(0, 0, size, size)
        drawn.append(crop)
        grey = torch.full((1, crop.height, crop.width, 3), int(60 + 400 * float(pose.jaw_rot[0])), dtype=torch.uint8)
        flat = torch.zeros(1, crop.height, crop.width)
        return Picture(grey, flat.to(torch.int8), flat, flat)

    monkeypatch.setattr(Presenter, "pictures", pictures)
    layout = np.random.default_rng(1).normal(256, 25, (478, 2)).astype(np.float32)
    layout[[face.INNER_UPPER, face.INNER_LOWER]] = 256, 325
    monkeypatch.setattr(record, "track", lambda _: layout)
    return drawn


def filmed(folder: Path, **wishes: int) -> Path:
    folder.mkdir(exist_ok=True)
    return record.record(
        "mira", SECONDS, folder / "mira.mp4", cache=folder / "cache", size=256, compiled=False, **wishes
    )


def test_a_film_has_sound_pictures_and_its_truth_beside_it(tmp_path: Path, painted: list[Crop]) -> None:
    film = filmed(tmp_path)
    with av.open(str(film)) as video:
        assert video.streams.video[0].average_rate == 25
        assert sum(1 for _ in video.decode(video=0)) == 100
    with av.open(str(film)) as video:
        sound = np.concatenate([frame.to_ndarray()[0] for frame in video.decode(audio=0)])
        assert len(sound) / 48_000 == pytest.approx(SECONDS, abs=0.05)
    with np.load(record.labels_beside(film), allow_pickle=False) as truth:
        assert truth["points"].shape == (100, 478, 3)
        assert truth["points"].dtype == np.float32
        assert truth["curves"].shape == (100, 52)
        assert tuple(truth["names"]) == face.ARKIT_52
        assert truth["fps"] == 25
        apart = truth["points"][:, face.INNER_LOWER, 1] - truth["points"][:, face.INNER_UPPER, 1]
        assert np.abs(apart - truth["inner_gap"]).max() < 1.0, "the head is turned by a few degrees only"
        assert "synthetic" in str(truth["about"])
        for start, end, name in truth["phones"]:
            if name == "m":
                assert truth["inner_gap"][int((start + end) / 2 * 25)] == 0, "lips meet in every m"
        assert truth["inner_gap"].max() > 3


def test_phones_are_whole_and_in_order() -> None:
    speech = record.speak(30.0, ("slt",), seed=2)
    assert speech.phones[0].start == 0
    assert speech.phones[-1].end == pytest.approx(30.0)
    for one, next_one in zip(speech.phones, speech.phones[1:], strict=False):
        assert one.end == pytest.approx(next_one.start, abs=2e-3)
    assert max(p.end - p.start for p in speech.phones if p.name == "pau") > 6, "a stretch of silence"


def test_a_killed_run_finds_its_pictures_again(
    tmp_path: Path, painted: list[Crop], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = record.encode

    def killed(pictures, *rest):  # type: ignore[no-untyped-def]
        for _ in range(40):
            next(iter(pictures))
        raise KeyboardInterrupt

    monkeypatch.setattr(record, "encode", killed)
    with pytest.raises(KeyboardInterrupt):
        filmed(tmp_path)
    assert not list(tmp_path.glob("*.mp4"))
    before = len(painted)
    monkeypatch.setattr(record, "encode", whole)
    film = filmed(tmp_path)
    resumed = len(painted) - before
    straight = filmed(tmp_path / "straight")
    assert resumed == (len(painted) - before - resumed) - before
    assert film.read_bytes() == straight.read_bytes()


def test_the_same_seed_gives_the_same_film_and_another_seed_another(tmp_path: Path, painted: list[Crop]) -> None:
    films = [filmed(tmp_path / str(n), seed=seed) for n, seed in enumerate((5, 5, 6))]
    first, again, other = (hashlib.sha256(film.read_bytes()).hexdigest() for film in films)
    assert first == again != other
    truths = [hashlib.sha256(record.labels_beside(film).read_bytes()).hexdigest() for film in films]
    assert truths[0] == truths[1] != truths[2]


def test_silence_is_drawn_once(tmp_path: Path, painted: list[Crop]) -> None:
    filmed(tmp_path)
    lower = record.scaled(record.LOWER, 256)
    assert painted.count(lower) < 90
    upper = record.scaled(record.UPPER, 256)
    assert painted.count(upper) < 60


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        (("zoe", "a.mp4", 1.0, 512), "mira, theo, ada"),
        (("mira", "a.avi", 1.0, 512), ".mp4"),
        (("mira", "nowhere/a.mp4", 1.0, 512), "directory that exists"),
        (("mira", "a.mp4", 0.0, 512), "0.05"),
        (("mira", "a.mp4", 1.0, 500), "512"),
    ],
)
def test_a_wish_that_cannot_be_met_is_answered_in_one_line(
    wish: tuple[str, str, float, int], said: str, tmp_path: Path
) -> None:
    name, out, minutes, size = wish
    refusal = record.refused(name, tmp_path / out, minutes, size)
    assert refusal is not None
    assert said in refusal
    assert "\n" not in refusal
    assert record.refused("mira", tmp_path / "a.mp4", 1.0, 512) is None


@pytest.mark.skipif(not shutil.which("flite"), reason="make deps installs the voices")
def test_every_voice_of_a_film_can_speak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    for voice in record.VOICES:
        spoken = record.say("Maybe.", voice)
        assert spoken.seconds > 0.2
        assert spoken.voice.removeprefix("espeak:") == voice
    with pytest.raises(speech.MissingVoiceError, match="nobody"):
        record.say("Maybe.", "nobody")


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("flite"), reason="make deps installs the voices")
def test_a_tracker_agrees_with_the_truth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Really drawn, really spoken. The tracker reads nothing of openings under 4 mm: it is asked about the rest."""
    mediapipe = pytest.importorskip("mediapipe")
    monkeypatch.setattr(record, "say", lambda text, voice: speech.flite(text, "slt"))
    film = record.record("mira", 4.0, tmp_path / "mira.mp4", cache=tmp_path, size=256, compiled=False)
    with av.open(str(film)) as video:
        pictures = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    with np.load(record.labels_beside(film), allow_pickle=False) as labels:
        truth, gap = labels["points"][..., :2], labels["inner_gap"]
    found = []
    with mediapipe.solutions.face_mesh.FaceMesh(static_image_mode=True, refine_landmarks=True) as mesh:
        for picture in pictures:
            faces = mesh.process(picture).multi_face_landmarks
            assert faces, "a face in every picture"
            found.append([(point.x * 256 - 0.5, point.y * 256 - 0.5) for point in faces[0].landmark])
    seen = np.array(found)
    eyes = np.linalg.norm(truth[:, 33] - truth[:, 263], axis=1)[:, None]
    assert (np.linalg.norm(seen - truth, axis=2) / eyes).mean() < 0.015
    apart = seen[:, face.INNER_LOWER, 1] - seen[:, face.INNER_UPPER, 1]
    assert np.corrcoef(apart, gap)[0, 1] > 0.93
    wide = gap > 0.04 * eyes[:, 0]
    assert wide.sum() > 20
    assert np.corrcoef(apart[wide], gap[wide])[0, 1] > 0.95
