"""What a client of the tests says, and a conversation of any messages."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np

from engine.media import Moment
from engine.protocol.closing import Close
from engine.protocol.events import event_to_json
from engine.protocol.frames import Kind, pack_frame
from engine.protocol.reader import ClientReader, Fail, Hear, Open, Say
from models.face import ARKIT_52
from models.rates import BLENDSHAPES, DENSE_POINTS, FACE, HEARD_CHUNK, POINTS

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parents[3] / "clients" / "golden.json").read_text())


HELLO = '{"type":"session.start","protocol":"1.0"}'


def hello(**fields: Any) -> str:
    return json.dumps({"type": "session.start", "protocol": "1.0", **fields})


def a_reader(**fields: Any) -> ClientReader:
    """One that has had its hello at time 0."""
    reader = ClientReader(0.0)
    (action,) = reader.receive(hello(**fields), 0.0)
    assert isinstance(action, Open)
    return reader


def failure(reader: ClientReader, message: str | bytes, now: float = 0.0) -> Close:
    (action,) = reader.receive(message, now)
    assert isinstance(action, Fail), action
    return action.error.close


def sound_frame(pcm: bytes, seq: int = 0, epoch: int = 0, pts_us: int = -1, flags: int = 0) -> bytes:
    return pack_frame(Kind.AUDIO_IN, flags, seq, epoch, pts_us, pcm)


def a_moment(position: int = 0, epoch: int = 0, jaw: float = 0.0, speaking: bool = True) -> Moment:
    face = np.zeros(FACE, np.float32)
    face[ARKIT_52.index("jawOpen")] = jaw
    face[BLENDSHAPES + 3] = 1.0
    return Moment(
        position * HEARD_CHUNK,
        epoch,
        np.full(HEARD_CHUNK, position, np.int16),
        speaking,
        face=face,
        points=np.full((POINTS, 3), 32.0, np.float32),
        mesh=np.full((DENSE_POINTS, 3), 16.0, np.float32),
    )


def check_conversation(reader: ClientReader, said: list[str | bytes]) -> None:
    failed = False
    for message in said:
        actions = reader.receive(message, 0.0)
        assert not (failed and actions)
        for action in actions:
            if isinstance(action, Fail):
                failed = True
                assert action.error.message
                json.loads(event_to_json(action.error.event()))
            if isinstance(action, Hear):
                assert action.pcm.size > 0
                assert action.pts is None or 0 <= action.pts < 2**63
            if isinstance(action, Say):
                json.loads(event_to_json(action.event))


def mutated(dice: random.Random, message: str | bytes) -> str | bytes:
    raw = bytearray(message.encode() if isinstance(message, str) else message)
    for _ in range(dice.choice([0, 1, 1, 2, 8])):
        at = dice.randrange(len(raw) + 1)
        match dice.randrange(4):
            case 0 if at < len(raw):
                raw[at] ^= 1 << dice.randrange(8)
            case 1:
                raw[at:at] = dice.randbytes(dice.randrange(1, 9))
            case 2:
                del raw[at : at + dice.randrange(1, 9)]
            case _:
                raw[at:at] = raw[: dice.randrange(1, 40)]
    return bytes(raw).decode(errors="replace") if isinstance(message, str) else bytes(raw)
