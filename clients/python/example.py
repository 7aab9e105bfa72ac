"""How far does the mouth open? `python -m clients.python.example speech.wav`"""

import asyncio
import sys
from pathlib import Path

from clients.python import Event, Face, connect
from clients.python.__main__ import read_wav


async def main(path: Path) -> None:
    voice = read_wav(path)
    async with connect(sample_rate=voice.sample_rate, channels=voice.channels, pacing="burst") as avatar:
        await avatar.push(voice.pcm)
        await avatar.end_segment()
        widest: Face | None = None
        async for message in avatar:
            if isinstance(message, Face) and (not widest or message.weights["jawOpen"] > widest.weights["jawOpen"]):
                widest = message
            elif isinstance(message, Event) and message.type == "speech.stopped":
                break
    if widest is not None:
        print(f"widest at {widest.pts_us / 1e6:.2f} s: jawOpen {widest.weights['jawOpen']:.2f}")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
