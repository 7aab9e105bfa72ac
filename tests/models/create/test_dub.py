"""An existing film says something else."""

import json

import av
import numpy as np
import pytest

from engine.__main__ import main
from models.create.dub import _played, _there_and_back
from models.create.film import spoken
from models.rates import SAMPLE_RATE
from tests.models.create.filmed import hum, presenter, shoot


def test_the_film_is_as_long_as_the_speech(small, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(small.cache))
    speech = shoot(tmp_path / "speech.mp4", presenter()[:2], hum(0.6))
    words = ["dub", str(small.film), str(speech), str(tmp_path / "out.mp4"), "--avatar", "small", "--json"]
    words += ["--avatars-dir", str(small.shelf.root)]
    assert main(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert 0.5 <= told["seconds"] <= 0.72
    with av.open(told["file"]) as container:
        assert container.metadata["digital_source_type"] == "compositeWithTrainedAlgorithmicMedia"
        assert container.streams.audio[0].sample_rate == SAMPLE_RATE
        assert sum(1 for _ in container.decode(video=0)) == round(told["seconds"] * 25)
    assert main(words) == 1
    assert "exists already" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("kind", ["wav", "mp3", "flac", "ogg"])
def test_the_speech_may_be_any_file_with_sound(kind, tmp_path):
    """The hum comes out as it went in, from its first sample on: no more than a codec's few milliseconds off."""
    said = hum(1.0)
    with av.open(str(tmp_path / f"speech.{kind}"), "w") as container:
        stream = container.add_stream(
            {"wav": "pcm_s16le", "ogg": "libopus"}.get(kind, kind), rate=48_000, layout="mono"
        )
        loud = np.repeat(np.clip(said, -1, 1) * 32_000, 3).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(loud[None], format="s16", layout="mono")
        frame.sample_rate = 48_000
        frames = av.AudioResampler(stream.format, "mono", 48_000, stream.codec_context.frame_size or None)
        for each in [*frames.resample(frame), *frames.resample(None)]:
            container.mux(stream.encode(each))
        container.mux(stream.encode(None))
    heard = spoken(tmp_path / f"speech.{kind}")
    assert abs(len(heard) - len(said)) < 0.06 * SAMPLE_RATE
    lags = np.correlate(heard[4_000:12_000], said[4_800:11_200], "valid")
    assert abs(int(lags.argmax()) - 800) <= 0.01 * SAMPLE_RATE


@pytest.mark.parametrize(("which", "complaint"), [("video", "does not exist"), ("audio", "does not exist")])
def test_what_is_not_there_is_said_before_anything_is_tracked(small, tmp_path, which, complaint, capsys):
    there = {"video": str(small.film), "audio": str(small.film), which: str(tmp_path / "none.mp4")}
    words = ["dub", there["video"], there["audio"], str(tmp_path / "out.mp4"), "--avatar", "small"]
    assert main([*words, "--avatars-dir", str(small.shelf.root)]) == 1
    said = capsys.readouterr().err
    assert complaint in said
    assert said.count("\n") == 1


def test_a_short_film_is_played_forth_and_back():
    assert _there_and_back(4, 9).tolist() == [0, 1, 2, 3, 2, 1, 0, 1, 2]
    assert _there_and_back(1, 3).tolist() == [0, 0, 0]


def test_pictures_come_in_any_order_that_is_asked_for(small):
    order = np.array([3, 4, 5, 4, 3, 4])
    shown = list(_played(small.film, order))
    assert np.array_equal(shown[0], shown[4])
    assert np.array_equal(shown[1], shown[5])
    assert not np.array_equal(shown[0], shown[2])


def test_an_avatar_that_is_not_there_is_refused(small, tmp_path, capsys):
    words = ["dub", str(small.film), str(small.film), str(tmp_path / "out.mp4"), "--avatar", "nobody"]
    assert main([*words, "--avatars-dir", str(small.shelf.root)]) == 1
    assert "no avatar is called" in capsys.readouterr().err
