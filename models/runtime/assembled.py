"""A runtime out of its parts: avatars of both kinds, whoever computes them, held to what the reference answered.

Avatars of kind "plain" have painted mouths, moved by the shared voice encoder; those of kind "learned" bring their own
graphs. Recurrent graphs are computed in f32; painters in the first precision that their golden steps allow.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from models.avatar import Avatar, PackageError, read_avatar
from models.runtime import Runtime
from models.runtime.ear import LIPS
from models.runtime.hearing import ByVoice, VoiceEar, require_parity
from models.runtime.networks import KIND, Learned, Networks
from models.runtime.networks import warm as warm_networks
from models.runtime.painting import painters
from models.runtime.plain import Plain, open_presenters, warm
from models.runtime.shelf import NewShelf, Shelf
from models.runtime.stages import MakeStage
from models.runtime.together import Together


def assemble(
    packages: Sequence[Path],
    slots: int,
    lookahead: int | None,
    new_ear: Callable[[int, Path], VoiceEar],
    make: MakeStage,
    precisions: Sequence[str],
    lips: Path = LIPS,
    new_shelf: NewShelf = Shelf,
    beside: bool = False,
) -> Runtime:
    """Raises `RuntimeError` or `PackageError` if a graph is missing or does not answer as the reference did.

    `new_ear(slots, lips)` makes the voice encoder for so many slots; `precisions` begins with the one that is best.
    `beside`: it is made in a thread of its own while loops and mouths are read: not on a GPU, where whatever any thread
    asks for would be recorded with it.
    """
    avatars = [read_avatar(package) for package in packages]
    learned = [avatar for avatar in avatars if avatar.kind == KIND]
    painted = [avatar.folder for avatar in avatars if avatar.kind != KIND]
    runtimes: list[Runtime] = []
    if painted or not learned:
        with ThreadPoolExecutor(1, "voice encoder") as thread:
            wanted = max(2, slots), lips  # the proof takes two sessions; guests reset their slots
            coming = thread.submit(new_ear, *wanted) if beside else None
            presenters = open_presenters(painted, lookahead, painters(make, precisions, slots), new_shelf)
            ear = new_ear(*wanted) if coming is None else coming.result()
        require_parity(ear, lips.with_name("golden.safetensors"))
        runtimes.append(warm(Plain(presenters, ByVoice(ear, slots))))
    if learned:
        for avatar in learned:
            avatar.verify()
        proven = [prove_one(avatar, slots, make, precisions, lookahead) for avatar in learned]
        runtimes.append(warm_networks(Networks(proven)))
    return Together(runtimes, [avatar.name for avatar in avatars])


def prove_one(avatar: Avatar, slots: int, make: MakeStage, precisions: Sequence[str], lookahead: int | None) -> Learned:
    """In the first precision that passes; the last one's refusal is raised."""
    for precision in precisions[:-1]:
        try:
            return Learned(avatar, slots, make, precision, lookahead)
        except PackageError:
            continue
    return Learned(avatar, slots, make, precisions[-1], lookahead)
