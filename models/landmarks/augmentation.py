"""Procrustes lip augmentation (Bigioi et al., section 3.2): N clips become N × N pairs of a voice and a head.

For a voice with its own landmarks L0 and another clip Lx, frame by frame: L0 is aligned onto Lx by Procrustes analysis
over the 68 points, and the lips of the aligned L0 replace those of Lx. What is heard then tells the lips, and how the
head moves tells nothing. Made when a batch asks for it: never a tenfold copy on a disk.
"""

import numpy as np
import numpy.typing as npt

from .. import face
from ..metrics import umeyama

PARTNERS = 10
"""Random partners for each voice, as published; more brought nothing, and 5 suffice."""

Points = npt.NDArray[np.float32]


def lend_lips(
    voice: Points,
    head: Points,
    moved: npt.NDArray[np.int64] = face.LIPS,
    by: npt.NDArray[np.int64] = face.DLIB,
) -> Points:
    """`head` [T, 478, 3] with the lips of `voice` [T', 478, 3]; as long as the shorter.

    The paper moves lips alone, `moved`; a network that predicts more takes more. It aligns `by` all 68 points, lips
    and jaw among them: where one mouth is open and the other shut, the lent lips are shifted against the skull.
    `face.RIGID` holds them to it.
    """
    frames = min(len(voice), len(head))
    voice, head = voice[:frames], head[:frames]
    aligned = umeyama(voice[:, by], head[:, by])(voice[:, moved])
    lent = head.copy()
    lent[:, moved] = aligned
    return lent


def partners(clips: int, count: int = PARTNERS, seed: int = 0) -> list[list[int]]:
    """For each of `clips`, the clips whose heads it may use: never itself, unless there is no other."""
    rng = np.random.default_rng(seed)
    chosen = []
    for clip in range(clips):
        others = [other for other in range(clips) if other != clip] or [clip]
        chosen.append(rng.choice(others, min(count, len(others)), replace=False).tolist())
    return chosen
