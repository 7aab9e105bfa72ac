"""Files into sound: what can be opened, what must not be, and that long files come in pieces."""

import io
import struct
import wave
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.audiofile import AudioFileError, read_audio, seconds_of
from models.rates import HEARD_RATE


def tone(seconds: float, rate: int, hertz: float = 440.0) -> npt.NDArray[np.int16]:
    return (12_000 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(np.int16)


def wav(pcm: npt.NDArray[np.int16], rate: int, channels: int = 1) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.repeat(pcm, channels).tobytes())
    return out.getvalue()


def encoded(suffix: str, codec: str, seconds: float = 1.5) -> bytes:
    out = io.BytesIO()
    with av.open(out, "w", format=suffix) as container:
        stream = container.add_stream(codec, rate=48_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(tone(seconds, 48_000).reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = 48_000
        for ready in av.AudioResampler(format=stream.format, layout="mono", rate=48_000).resample(frame):
            container.mux(stream.encode(ready))
        container.mux(stream.encode(None))
    return out.getvalue()


@pytest.mark.parametrize(("rate", "channels"), [(8_000, 1), (16_000, 1), (44_100, 2), (48_000, 2)])
def test_any_rate_and_channel_count_comes_out_the_same(rate: int, channels: int) -> None:
    pieces = list(read_audio(io.BytesIO(wav(tone(2.5, rate), rate, channels))))
    assert [len(piece) for piece in pieces[:2]] == [HEARD_RATE, HEARD_RATE]
    sound = np.concatenate(pieces)
    assert abs(len(sound) - 2.5 * HEARD_RATE) < 100
    assert np.corrcoef(sound[1_000:100_000], tone(2.5, HEARD_RATE)[1_000:100_000])[0, 1] > 0.99


@pytest.mark.parametrize(("suffix", "codec"), [("mp3", "mp3"), ("ogg", "libopus"), ("flac", "flac"), ("mp4", "aac")])
def test_the_usual_compressed_files_are_opened(suffix: str, codec: str) -> None:
    sound = np.concatenate(list(read_audio(io.BytesIO(encoded(suffix, codec)))))
    assert 1.4 < len(sound) / HEARD_RATE < 1.7
    assert int(np.abs(sound).max()) > 8_000


def test_a_path_works_and_knows_its_length(tmp_path: Path) -> None:
    path = tmp_path / "tone.wav"
    path.write_bytes(wav(tone(1.25, 16_000), 16_000))
    assert sum(len(piece) for piece in read_audio(path)) == pytest.approx(1.25 * HEARD_RATE, abs=50)
    assert seconds_of(path) == pytest.approx(1.25, abs=0.01)
    assert seconds_of(tmp_path / "missing.wav") is None


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(AudioFileError, match=r"nothing\.wav does not exist"):
        next(read_audio(tmp_path / "nothing.wav"))


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"\x00" * 5_000, b"RIFF\xff\xff\xff\xffWAVE", wav(tone(0, 8_000), 8_000)]
)
def test_what_is_no_sound_is_refused_in_one_line(content: bytes) -> None:
    with pytest.raises(AudioFileError) as refused:
        list(read_audio(io.BytesIO(content), name="speech.wav"))
    assert "\n" not in str(refused.value)


def test_s6_a_playlist_reads_no_other_file_and_no_address(tmp_path: Path) -> None:
    """An HLS or concat playlist would let whoever sends it read this machine's files."""
    secret = tmp_path / "secret.wav"
    secret.write_bytes(wav(tone(1, 16_000), 16_000))
    playlists = [
        f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile://{secret}\n#EXT-X-ENDLIST\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nhttp://127.0.0.1:9/x.ts\n#EXT-X-ENDLIST\n",
        f"ffconcat version 1.0\nfile '{secret}'\n",
        "ffconcat version 1.0\nfile secret.wav\n",
    ]
    for number, playlist in enumerate(playlists):
        path = tmp_path / f"list{number}.m3u8"
        path.write_text(playlist)
        for source in (path, io.BytesIO(playlist.encode())):
            with pytest.raises(AudioFileError):
                list(read_audio(source))


def test_a_file_longer_than_allowed_is_refused_before_it_is_all_read() -> None:
    pieces = []
    with pytest.raises(AudioFileError, match="longer than 3 s"):  # noqa: PT012 - the pieces before it are counted
        for piece in read_audio(io.BytesIO(wav(tone(10, 16_000), 16_000)), seconds_most=3.0):
            pieces.append(piece)
    assert len(pieces) <= 3


def test_a_header_that_lies_about_its_length_costs_nothing() -> None:
    content = bytearray(wav(tone(0.5, 16_000), 16_000))
    content[4:8] = content[40:44] = struct.pack("<I", 0xFFFFFFF0)
    assert sum(len(piece) for piece in read_audio(io.BytesIO(bytes(content)))) == pytest.approx(24_000, abs=50)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2_000), st.binary(min_size=1, max_size=40))
def test_a_damaged_file_gives_sound_or_one_clear_error(where: int, damage: bytes) -> None:
    content = bytearray(wav(tone(0.2, 16_000), 16_000))
    content[where : where + len(damage)] = damage
    try:
        assert sum(len(piece) for piece in read_audio(io.BytesIO(bytes(content)), seconds_most=60)) <= 60 * HEARD_RATE
    except AudioFileError as refused:
        if "\n" in str(refused):
            pytest.fail(f"two lines: {refused}")
