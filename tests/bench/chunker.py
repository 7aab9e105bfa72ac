"""What 40 ms of sound cost before the model hears them: chunker at every rate, and the gate. One thread.

python -m tests.bench.chunker [--json]
"""

import json
import sys
from collections.abc import Callable

import numpy as np

from engine.chunker import Chunker
from engine.gate import Gate
from models.rates import CHUNK
from tests.bench import median_ms

RATES = (8_000, 16_000, 24_000, 44_100, 48_000)
PACKETS_A_SECOND = 50


def chunk_of_packets(rate: int, stereo: bool) -> Callable[[], object]:
    """Two packets of 20 ms in, one chunk out, as WebRTC has it."""
    chunker, count = Chunker(), rate // PACKETS_A_SECOND
    pcm = np.random.default_rng(1).integers(-8_000, 8_000, (count, 2) if stereo else count, dtype=np.int16)
    pts = 0

    def step() -> int:
        nonlocal pts
        for _ in range(2):
            chunker.push(pcm, rate, pts=pts)
            pts += count
        return len(chunker.take())

    return step


def measure() -> dict[str, float]:
    """Milliseconds a chunk."""
    found = {f"chunker at {rate} Hz": median_ms(chunk_of_packets(rate, stereo=False)) for rate in RATES}
    found["chunker at 48000 Hz stereo"] = median_ms(chunk_of_packets(48_000, stereo=True))
    gate, sound = Gate(), np.random.default_rng(1).standard_normal(CHUNK).astype(np.float32) * np.float32(0.1)
    found["gate"] = median_ms(lambda: gate.open(sound))
    return found


if __name__ == "__main__":
    measured = measure()
    if "--json" in sys.argv:
        print(json.dumps(measured))
    else:
        for name, milliseconds in measured.items():
            print(f"{name:30} {milliseconds:.3f} ms a chunk")
