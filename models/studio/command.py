"""`liveface studio speech | record | voice`: synthetic speech, presenters' films, and the encoder that listens."""

import argparse
from pathlib import Path

from rich.console import Console
from rich.progress import track

from models.studio.corpus import Plan, corpus
from models.studio.festival import FESTIVAL_VOICES, missing
from models.studio.speech import FLITE_VOICES, MissingVoiceError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="speech|record|voice")
    speech = verbs.add_parser("speech", help="a corpus with exact phone times: liveface studio speech corpus/")
    speech.add_argument("out", type=Path, help="directory of the .npz files")
    speech.add_argument("--flite", type=int, default=120, help="sentences for each flite voice")
    speech.add_argument("--espeak", type=int, default=700, help="utterances of espeak-ng")
    speech.add_argument("--festival", type=int, default=60, help="of each of its voices that is installed")
    speech.add_argument("--seed", type=int, default=1, help="the same gives the same speech (default: 1)")
    film = verbs.add_parser("record", help="a presenter's film with true labels: liveface studio record mira mira.mp4")
    film.add_argument("name", help="mira, theo or ada")
    film.add_argument("out", type=Path, help="the film, .mp4; its labels lie beside it as .labels.npz")
    film.add_argument("--minutes", type=float, default=1.5, help="of film, 0.05 to 60 (default: 1.5)")
    film.add_argument("--size", type=int, default=512, help="pixels of a side: 256, 384, 512, 768 or 1024")
    film.add_argument("--voices", help="of flite and espeak-ng, by commas: slt,awb,en-us+f3")
    film.add_argument("--seed", type=int, default=1, help="the same gives the same film (default: 1)")
    film.add_argument("--cache", type=Path, default=Path.home() / ".cache/liveface/studio", help="of rendered pictures")
    listen = verbs.add_parser("voice", help="train the voice encoder: liveface studio voice models/shipped/voice")
    listen.add_argument("out", type=Path, help="directory of the encoder")
    listen.add_argument("--minutes", type=float, default=30.0, help="of training")
    listen.add_argument("--start", type=Path, help="weights to go on from: models/shipped/voice/voice.safetensors")
    listen.add_argument("--without", nargs="*", default=[], metavar="VOICE", help="not to be heard: flite, espeak, awb")
    listen.add_argument("--everybody", action="store_true", help="hold no voice out, not the demo's own either")
    listen.add_argument("--cache", type=Path, default=Path.home() / ".cache/liveface/speech")


def run(arguments: argparse.Namespace) -> int:
    try:
        if arguments.verb == "speech":
            return _speech(arguments)
        if arguments.verb == "record":
            return _record(arguments)
        from models.studio.listening import main  # needs torch, which the corpus does not

        words = [str(arguments.out), "--minutes", str(arguments.minutes), "--cache", str(arguments.cache)]
        words += ["--start", str(arguments.start)] if arguments.start else []
        words += ["--everybody"] if arguments.everybody else []
        return main([*words, "--without", *arguments.without])
    except MissingVoiceError as absent:
        Console(stderr=True).print(f"liveface studio: {absent}", markup=False)
        return 2


def _speech(arguments: argparse.Namespace) -> int:
    plan = Plan(arguments.seed, arguments.flite, arguments.espeak, per_festival_voice=arguments.festival)
    total = plan.per_flite_voice * (len(FLITE_VOICES) - 1) + plan.espeak_utterances  # kal and kal16 share
    total += plan.per_festival_voice * (len(FESTIVAL_VOICES) - len(missing()))
    spoken = (utterance.seconds for utterance in corpus(plan, arguments.out))
    seconds = sum(track(spoken, description="speaking", total=total))
    Console().print(f"{seconds / 60:.1f} minutes of speech in {arguments.out}", markup=False)
    return 0


def _record(arguments: argparse.Namespace) -> int:
    from models.studio import record  # needs torch, which the corpus does not

    voices = tuple(arguments.voices.split(",")) if arguments.voices else record.VOICES
    wrong = record.refused(arguments.name, arguments.out, arguments.minutes, arguments.size)
    if wrong:
        Console(stderr=True).print(f"liveface studio: {wrong}", markup=False)
        return 2
    film = record.record(
        arguments.name,
        arguments.minutes * 60,
        arguments.out,
        cache=arguments.cache,
        seed=arguments.seed,
        size=arguments.size,
        voices=voices,
    )
    Console().print(f"{film}, labels in {record.labels_beside(film)}", markup=False)
    return 0
