"""`python -m clients.python --wav speech.wav --print`: what a face does while a file is spoken."""

import argparse
import asyncio
import json
import sys
import wave
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clients.python.client import URL, Avatar, AvatarClosedError, connect
from clients.python.wire import Event, Face

AHEAD_SECONDS = 20.0
"""How far a spoken file runs ahead of the face: well inside what the server queues."""

PIECE_SECONDS = 0.1
LIVE_PIECE_SECONDS = 0.02


@dataclass(frozen=True)
class Voice:
    pcm: bytes  # s16, interleaved
    sample_rate: int
    channels: int

    @property
    def seconds(self) -> float:
        return len(self.pcm) / (2 * self.channels * self.sample_rate)

    def pieces(self, seconds: float) -> list[bytes]:
        step = int(seconds * self.sample_rate) * 2 * self.channels
        return [self.pcm[i : i + step] for i in range(0, len(self.pcm), step)]


def read_wav(path: Path) -> Voice:
    """16-bit PCM, one or two channels; ValueError says how to make one of what it is instead."""
    try:
        with wave.open(str(path), "rb") as file:
            if file.getsampwidth() != 2 or file.getnchannels() > 2:
                raise ValueError("it must be 16-bit PCM with one or two channels")
            return Voice(file.readframes(file.getnframes()), file.getframerate(), file.getnchannels())
    except FileNotFoundError as missing:
        raise ValueError(f"{path} does not exist") from missing
    except (wave.Error, EOFError, ValueError) as wrong:
        why = "it ends before it has begun" if isinstance(wrong, EOFError) else wrong
        raise ValueError(
            f"{path} cannot be used: {why}. Try: ffmpeg -i {path} -ac 1 -ar 16000 -c:a pcm_s16le speech.wav"
        ) from wrong


async def speak(avatar: Avatar, voice: Voice, live: bool) -> None:
    """Push a voice: at its own pace, or as fast as the server's queue allows."""
    clock = asyncio.get_running_loop()
    began = clock.time()
    sent = 0.0
    for piece in voice.pieces(LIVE_PIECE_SECONDS if live else PIECE_SECONDS):
        ahead = 0.0 if live else AHEAD_SECONDS
        await asyncio.sleep(max(0.0, began + sent - ahead - clock.time()))
        await avatar.push(piece)
        sent += len(piece) / (2 * voice.channels * voice.sample_rate)
    if not live:
        await avatar.end_segment()


async def watch(avatar: Avatar, show: str, names: Sequence[str], end_us: int | None) -> int:
    """Print faces until the speech has been said; how many there were."""
    count = 0
    async for message in avatar:
        if isinstance(message, Face):
            count += 1
            print_face(message, show, names)
            if end_us is not None and message.pts_us >= end_us:
                break
        elif isinstance(message, Event):
            if show == "json":
                print(json.dumps({"type": message.type, **message.fields}))
            elif message.type in ("error", "warning", "session.draining"):
                print(f"{message.type}: {dict(message.fields)}", file=sys.stderr)
            if message.type == "speech.stopped" and end_us is None:
                break
    return count


def print_face(face: Face, show: str, names: Sequence[str]) -> None:
    if show == "json":
        rounded = {name: round(value, 4) for name, value in face.weights.items()}
        said = {"type": "face", "pts_us": face.pts_us, "speaking": face.speaking, "weights": rounded}
        print(json.dumps(said | {"head": {"rotation": face.rotation, "position": face.position}}))
    elif show == "text":
        bars = "  ".join(
            f"{name} {face.weights[name]:.2f} {'#' * round(12 * face.weights[name]):<12}" for name in names
        )
        print(f"{face.pts_us / 1e6:8.3f} s  {bars}")


async def run(arguments: argparse.Namespace) -> int:
    voice = read_wav(arguments.wav)
    face = {"rate": arguments.rate, "coords": arguments.coords, "schema": arguments.schema}
    async with connect(
        arguments.url,
        token=arguments.token,
        avatar=arguments.avatar,
        sample_rate=voice.sample_rate,
        channels=voice.channels,
        pacing="realtime" if arguments.live else "burst",
        face=face,
    ) as avatar:
        names = [name for name in arguments.names.split(",") if name in avatar.names] or avatar.names[:3]
        end_us = None
        if arguments.live:
            end_us = round(voice.seconds * 1e6) + avatar.lookahead_ms * 1000
        speaking = asyncio.create_task(speak(avatar, voice, arguments.live))
        try:
            count = await watch(avatar, arguments.show, names, end_us)
        finally:
            speaking.cancel()
        await asyncio.gather(speaking, return_exceptions=True)
    print(f"{count} faces for {voice.seconds:.2f} s of speech", file=sys.stderr)
    return 0


def parser() -> argparse.ArgumentParser:
    parse = argparse.ArgumentParser(
        prog="python -m clients.python",
        description="Speak a WAV file through a Liveface server and see what the face does.",
        epilog="example: python -m clients.python --wav speech.wav --print",
    )
    parse.add_argument("--wav", type=Path, required=True, help="16-bit PCM, mono or stereo, 8 to 48 kHz")
    parse.add_argument("--url", default=URL, help=f"default: {URL}")
    parse.add_argument("--avatar", help="the server's own choice by default")
    parse.add_argument("--token", help="from POST /v1/sessions, where the server asks for one")
    parse.add_argument("--rate", type=int, default=25, choices=(25, 50, 60), help="faces a second")
    parse.add_argument("--coords", default="gltf", choices=("gltf", "unity", "unreal"))
    parse.add_argument("--schema", default="arkit52", choices=("arkit52", "vrm1", "oculus15"))
    parse.add_argument("--live", action="store_true", help="send at the pace of speech, as a microphone would")
    parse.add_argument("--names", default="jawOpen,mouthPucker,mouthClose", help="which weights to print")
    shown = parse.add_mutually_exclusive_group()
    shown.add_argument("--print", dest="show", action="store_const", const="text", help="a line for each face")
    shown.add_argument("--json", dest="show", action="store_const", const="json", help="a JSON object for each message")
    parse.set_defaults(show="")
    return parse


def main() -> int:
    try:
        return asyncio.run(run(parser().parse_args()))
    except (AvatarClosedError, ValueError, OSError) as wrong:
        print(f"error: {wrong}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
