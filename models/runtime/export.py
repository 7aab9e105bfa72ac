"""The shipped voice encoder's graph and proof, made again from its weights: `python -m models.runtime.export`."""

import argparse
import json
from pathlib import Path

from safetensors import safe_open

from models.runtime.eager import VOICE
from models.runtime.proof import prove
from models.voice import Lips, load, ship


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Make the proof of the voice encoder's graph again; with --graph the graph too.",
        epilog="example: python -m models.runtime.export --graph",
    )
    parser.add_argument("--voice", type=Path, default=VOICE, help="weights, as models.voice.save writes them")
    parser.add_argument("--graph", action="store_true", help="export lips.onnx again from these weights")
    arguments = parser.parse_args()
    directory, encoder = arguments.voice.parent, load(arguments.voice)
    if arguments.graph:
        with safe_open(str(arguments.voice), framework="np") as file:
            made = json.loads((file.metadata() or {}).get("made", "{}"))
        ship(directory, encoder, **made)
    else:
        prove(directory, Lips(encoder))
    print(f"{directory}: lips.onnx and the golden steps that prove it")


if __name__ == "__main__":
    main()
