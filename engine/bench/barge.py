"""How long an interrupt takes, seen from the receiver: `python -m engine.bench.barge PLAN`, a process.

The client has the server say a steady tone that would last far longer, interrupts it over the data channel, and notes
when the last of it arrives: the last packet in whose decoded sound the tone still is, and the last picture that a
server under `--probe` marked as of a loud moment. Then again, each time at another phase of the 40 ms.
"""

import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import aiohttp
import numpy as np

from engine.bench.latency import TONE_HERTZ, TONE_LEVEL, NotMatchedError, Pcm, summary
from engine.bench.peer import Notes, Voice, listen_for, look, on_call, stay_on_loopback
from engine.clock import Clock, RealClock
from models.rates import CHUNK_SECONDS, HEARD_RATE

TONE_SECONDS = 5.0
SPEAK_SECONDS = 1.5
"""Into the tone, to when it is cut off."""

QUIET_SECONDS = 1.0
"""After a cut, to the next tone."""

STEADY_SECONDS = 0.2
"""A tone that was cut off had been there so shortly before."""


@dataclass(frozen=True, slots=True)
class BargePlan:
    url: str
    times: int
    avatar: str
    token: str | None = None


@dataclass(frozen=True, slots=True)
class Barged:
    """Times of the client's own clock, in seconds: of each interrupt, and of all that was loud when it arrived."""

    interrupts: list[float]
    sounds: list[float]
    pictures: list[float]


def tone(seconds: float) -> Pcm:
    at = np.arange(int(seconds * HEARD_RATE)) / HEARD_RATE
    wave: Pcm = np.rint(TONE_LEVEL * np.sqrt(2) * np.sin(2 * np.pi * TONE_HERTZ * at)).astype(np.int16)
    return wave


def describe(barged: Barged) -> dict[str, Any]:
    """Milliseconds from an interrupt to the last old sound and the last old picture. Raises `NotMatchedError`."""
    return {
        "interrupts": len(barged.interrupts),
        "last_sound_ms": summary(_last(barged.interrupts, barged.sounds)),
        "last_picture_ms": summary(_last(barged.interrupts, barged.pictures)),
    }


def _last(interrupts: Sequence[float], loud: Sequence[float]) -> list[float]:
    lasted = []
    for cut in interrupts:
        near = [at for at in loud if cut - STEADY_SECONDS < at < cut + QUIET_SECONDS]
        if not near or min(near) > cut:
            raise NotMatchedError("the tone did not arrive before it was cut off: is the server running with --probe?")
        lasted.append((max(near) - cut) * 1e3)
    return lasted


async def barge(plan: BargePlan, clock: Clock) -> Barged:
    """Raises `RuntimeError` with one line."""
    notes, interrupts = Notes(), list[float]()
    silence = Voice(np.zeros(0, np.int16), clock)
    headers = {} if plan.token is None else {"Authorization": f"Bearer {plan.token}"}
    async with aiohttp.ClientSession(plan.url) as http:
        async with http.post("/v1/sessions", json={"avatar_id": plan.avatar}, headers=headers) as answered:
            ticket = await answered.json()
            if answered.status != 201:
                raise RuntimeError(f"the server answered {answered.status}: {ticket.get('detail')}")
        own = {"Authorization": f"Bearer {ticket['token']}"}
        say = f"/v1/sessions/{ticket['session_id']}/audio"
        async with on_call(http, ticket["whip_url"], ticket["token"], silence, notes, clock) as commands:
            for number in range(plan.times):
                spoken = {**own, "Content-Type": f"audio/pcm;rate={HEARD_RATE}"}
                async with http.post(say, data=tone(TONE_SECONDS).tobytes(), headers=spoken) as told:
                    if told.status != 200:
                        raise RuntimeError(
                            f"the server answered {told.status}: {' '.join((await told.text()).split())}"
                        )
                phase = number / plan.times * CHUNK_SECONDS
                await clock.sleep_until(clock.now() + SPEAK_SECONDS + phase)
                interrupts.append(clock.now())
                commands.send(json.dumps({"type": "interrupt"}))
                await clock.sleep_until(clock.now() + QUIET_SECONDS)
    return Barged(
        interrupts, listen_for(notes.audio, TONE_LEVEL / 4), [seen.last for seen in look(notes.video) if seen.loud]
    )


def main() -> int:
    plan, clock = BargePlan(**json.loads(sys.argv[1])), RealClock()
    stay_on_loopback(plan.url)
    try:
        barged = asyncio.run(barge(plan, clock))
    except (RuntimeError, aiohttp.ClientError) as error:
        print(f"liveface: {error}", file=sys.stderr)
        return 1
    json.dump(asdict(barged), sys.stdout)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
