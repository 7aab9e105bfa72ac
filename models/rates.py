"""The numbers that all sides agree on. Imports nothing, so that everything may import it."""

from typing import Final

FRAME_RATE: Final = 25
"""Pictures a second, and chunks of sound a second: one chunk, one picture."""

SAMPLE_RATE: Final = 16_000
"""What the model hears, in hertz, mono."""

HEARD_RATE: Final = 48_000
"""What the ear hears, in hertz, mono. Every pts in the engine counts these samples."""

CHUNK: Final = SAMPLE_RATE // FRAME_RATE
"""640 samples: 40 ms for the model."""

HEARD_CHUNK: Final = HEARD_RATE // FRAME_RATE
"""1,920 samples: the same 40 ms for the ear."""

CHUNK_SECONDS: Final = 1 / FRAME_RATE

MELS: Final = 80
MEL_HOP: Final = SAMPLE_RATE // 100
"""160 samples: a mel column every 10 ms, four to a chunk."""

MEL_WINDOW: Final = SAMPLE_RATE // 40
"""400 samples: 25 ms under the window."""

LOOKAHEAD_DEFAULT: Final = 2
LOOKAHEAD_MOST: Final = 5
"""Frames of future that a network may ask for; each delays the picture by 40 ms."""

MESH_POINTS: Final = 478
"""MediaPipe's face mesh with irises."""

DENSE_POINTS: Final = 468
"""The same without irises: the mesh that travels."""

POINTS: Final = 131
"""`face.HOUSE`: lips, jaw and pose points, the landmarks that travel between rooms."""

BLENDSHAPES: Final = 52
VISEMES: Final = 15
FACE: Final = BLENDSHAPES + 4 + 3 + 2
"""A face on the wire: weights, head quaternion x y z w, head position in metres, gaze yaw and pitch in degrees."""
