"""The CPU's runtime: what networks an avatar has, computed by OpenVINO on one thread. No torch.

Avatars of kind "plain" have painted mouths, moved by the shared voice encoder; those of kind "learned" bring their own
graphs. Recurrent graphs are computed in f32, painters in bf16 where this CPU has it and the golden steps allow it.
"""

from collections.abc import Sequence
from pathlib import Path

from models.avatar import PackageError, read_avatar
from models.runtime import Runtime
from models.runtime.compiled import Compiled, best_precision
from models.runtime.ear import LIPS, Ear
from models.runtime.hearing import VOICE_LOOKAHEADS, ByVoice, require_parity
from models.runtime.networks import KIND, Learned, Networks, on_host
from models.runtime.networks import warm as warm_networks
from models.runtime.plain import Plain, open_presenters, warm
from models.runtime.together import Together


def open(packages: Sequence[Path], slots: int, lookahead: int | None = None, lips: Path = LIPS) -> Runtime:  # noqa: A001 - the seam's name
    """Raises `RuntimeError` or `PackageError` if a graph is missing or does not answer as the reference did."""
    avatars = [read_avatar(package) for package in packages]
    learned = [avatar for avatar in avatars if avatar.kind == KIND]
    painted = [avatar.folder for avatar in avatars if avatar.kind != KIND]
    runtimes: list[Runtime] = []
    if painted or not learned:
        ear = Ear(max(2, slots), lips)  # the proof takes two sessions; guests reset their slots
        require_parity(ear, lips.with_name("golden.safetensors"))
        presenters = open_presenters(painted, lookahead, VOICE_LOOKAHEADS)
        runtimes.append(warm(Plain(presenters, ByVoice(ear, slots))))
    if learned:
        for avatar in learned:
            avatar.verify()
        precision = best_precision()
        compiled = []
        for avatar in learned:
            try:
                compiled.append(Learned(avatar, slots, on_host(Compiled), precision, lookahead))
            except PackageError:
                if precision == "f32":
                    raise
                compiled.append(Learned(avatar, slots, on_host(Compiled), "f32", lookahead))
        runtimes.append(warm_networks(Networks(compiled)))
    return Together(runtimes, [avatar.name for avatar in avatars])
