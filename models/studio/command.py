"""`liveface studio speech | voice`: synthetic speech, and the encoder that listens to it."""

import argparse
from pathlib import Path

from rich.console import Console
from rich.progress import track

from models.studio.speech import FLITE_VOICES, MissingVoiceError, Plan, corpus


def add_arguments(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="speech|voice")
    speech = verbs.add_parser("speech", help="a corpus with exact phone times: liveface studio speech corpus/")
    speech.add_argument("out", type=Path, help="directory of the .npz files")
    speech.add_argument("--flite", type=int, default=120, help="sentences for each flite voice")
    speech.add_argument("--espeak", type=int, default=700, help="utterances of espeak-ng")
    speech.add_argument("--seed", type=int, default=1)
    listen = verbs.add_parser("voice", help="train the voice encoder: liveface studio voice models/shipped/voice")
    listen.add_argument("out", type=Path, help="directory of the encoder")
    listen.add_argument("--minutes", type=float, default=30.0, help="of training")
    listen.add_argument("--cache", type=Path, default=Path.home() / ".cache/liveface/speech")


def run(arguments: argparse.Namespace) -> int:
    try:
        if arguments.verb == "speech":
            return _speech(arguments)
        from models.studio.listening import main  # needs torch, which the corpus does not

        return main([str(arguments.out), "--minutes", str(arguments.minutes), "--cache", str(arguments.cache)])
    except MissingVoiceError as missing:
        Console(stderr=True).print(f"liveface studio: {missing}", markup=False)
        return 2


def _speech(arguments: argparse.Namespace) -> int:
    plan = Plan(arguments.seed, arguments.flite, arguments.espeak)
    total = plan.per_flite_voice * len(FLITE_VOICES) + plan.espeak_utterances
    spoken = (utterance.seconds for utterance in corpus(plan, arguments.out))
    seconds = sum(track(spoken, description="speaking", total=total))
    Console().print(f"{seconds / 60:.1f} minutes of speech in {arguments.out}", markup=False)
    return 0
