"""What was made, honestly, in one file to look at (`report.html`) and one to compute with (`report.json`).

Pictures, the film and the plots are inside the page: it can be sent to whoever has to decide, and needs nothing else.
"""

import base64
import html
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av
import numpy as np

from models import face
from models.avatar import Avatar, write_atomically
from models.create.evaluate import PUBLISHED, Scores, by_opening
from models.create.film import Floats, Picture
from models.create.live import opened
from models.create.loop import Stretch
from models.create.package import Scene
from models.create.track import Track, faults, mean_pixels
from models.encoding import jpeg
from models.metrics import face_box
from models.rates import CHUNK, FRAME_RATE, SAMPLE_RATE
from models.runtime import Row, Wants

FILM_SECONDS: Final = 12
COST_STEPS: Final = 30
OVERLAY_HEIGHT: Final = 320
SECONDS_A_CUT: Final = 10.0
"""On the mean: with more cuts than that, what is between two of them is too short for a sentence."""


@dataclass(frozen=True, slots=True)
class Made:
    """What there is to report of."""

    name: str
    quality: str
    minutes: float
    tracks: tuple[tuple[str, Track], ...]
    learned_seconds: float
    stretch: Stretch
    scene: Scene
    lookahead: int


def write(folder: Path, made: Made, scores: Scores, avatar: Avatar) -> None:
    """`report.html` and `report.json` in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    told = facts(made, scores, avatar)
    write_atomically(folder / "report.json", (json.dumps(told, indent=2) + "\n").encode())
    write_atomically(folder / "report.html", page(made, scores, told).encode())


def facts(made: Made, scores: Scores, avatar: Avatar) -> dict[str, Any]:
    height, width = made.scene.pictures.shape[1:3]
    return {
        "name": made.name,
        "quality": made.quality,
        "minutes": round(made.minutes, 1),
        "learned_seconds": round(made.learned_seconds, 1),
        "lookahead": made.lookahead,
        "footage": {name: faults(track) for name, track in made.tracks},
        "pose_coverage": coverage([track for _, track in made.tracks]),
        "loop": {
            "film": made.tracks[made.stretch.track][0],
            "start": made.stretch.start / FRAME_RATE,
            "end": made.stretch.stop / FRAME_RATE,
            "seconds": made.stretch.seconds,
            "join": "cross-fade" if made.stretch.fades else "forth and back",
            "seam_percent": round(made.stretch.seam, 3),
            "size": f"{width}x{height}",
        },
        "scores": scores.facts(),
        "runtime": cost(avatar),
        "warnings": warnings(made, scores),
        "package_bytes": sum((avatar.folder / path).stat().st_size for path in avatar.files),
    }


def coverage(tracks: Sequence[Track]) -> dict[str, float]:
    """How far the head was turned, in degrees: the 5 % and 95 % quantiles."""
    pose = np.concatenate([track.pose[track.usable] for track in tracks])
    low, high = np.quantile(pose, [0.05, 0.95], axis=0)
    names = ("yaw", "pitch", "roll")
    return {
        f"{name}_{end}": round(float(q[i]), 1) for i, name in enumerate(names) for end, q in (("5", low), ("95", high))
    }


def cost(avatar: Avatar) -> dict[str, float | str]:
    """CPU milliseconds of a step of one session: what the avatar costs while it is served."""
    from time import process_time

    runtime = opened(avatar.folder)
    sound = np.random.default_rng(0).normal(0, 0.05, (COST_STEPS, CHUNK)).astype(np.float32)
    times = []
    for step, pcm in enumerate(sound):
        began = process_time()
        runtime.step([Row(0, 0, step == 0, avatar.name, pcm, step, Wants.PICTURE | Wants.FACE | Wants.POINTS)])
        times.append(process_time() - began)
    runtime.close()
    core_ms = 1000 * float(np.median(times[5:]))
    return {"core_ms_a_frame": round(core_ms, 2), "share_of_a_core": round(core_ms * FRAME_RATE / 1000, 3)}


def warnings(made: Made, scores: Scores) -> list[str]:
    """What to film again, in words."""
    said = of_footage([track for _, track in made.tracks])
    if made.learned_seconds < 60:
        said.insert(0, f"only {made.learned_seconds:.0f} s were learned from: film two to four minutes")
    if made.stretch.seconds < 8:
        said.append(
            f"the loop is {made.stretch.seconds:.0f} s short and will be seen to repeat: film 12 s without a cut"
        )
    if made.stretch.seam > 1.0:
        said.append("the loop turns in mid-motion: choose a calmer stretch with --loop START:END")
    live, truth = scores.motion["live"], scores.motion["truth"]
    if live["opening_r"] < 0.8:
        said.append(
            f"lips follow the voice only so far (r = {live['opening_r']:.2f}): film more speech, or --quality best"
        )
    if abs(live["sync_ms"]) > 40:
        said.append(f"lips are {live['sync_ms']:.0f} ms off the voice")
    if live["silence_motion"] > 2 * truth["silence_motion"]:
        said.append("lips move in silence more than they should")
    if scores.phones.get("live", {}).get("gap_shut", 1.0) < 0.9:
        said.append("the lips do not always meet at m, b and p: film more speech, in the voices that it will have")
    if scores.pictures["repainted"]["sharpness"] < 0.8:
        said.append("the mouth is softer than the film: --quality best, or film with more light")
    return said


def of_footage(tracks: Sequence[Track]) -> list[str]:
    """The same, of what can be known before anything is learned."""
    said: list[str] = []
    frames = sum(len(track.points) for track in tracks)

    def often(name: str, share: float) -> bool:
        return sum(int(getattr(track, name).sum()) for track in tracks) > share * frames

    if often("covered", 0.03):
        said.append("a hand covers the mouth now and then: keep hands down")
    if often("second", 0.02):
        said.append("a second face is in the picture now and then: film alone")
    if often("turned", 0.03):
        said.append("the head turns far away: look towards the camera")
    if often("missing", 0.03):
        said.append("the face is lost in some frames: more light, and stay in the picture")
    cuts = sum(int(track.cut.sum()) for track in tracks)
    if cuts > frames / FRAME_RATE / SECONDS_A_CUT:
        said.append(f"the film is cut {cuts} times, and nothing is learned across a cut: film in one go")
    if any(faults(track)["eyes_hidden"] for track in tracks):
        said.append("the eyes are dark or behind glasses: film without sunglasses, with light from the front")
    if any(track.offset_ms for track in tracks):
        moved = max((track.offset_ms for track in tracks), key=abs)
        said.append(
            f"the sound was {abs(moved):.0f} ms {'early' if moved > 0 else 'late'} in the recording; it was mended"
        )
    if any(track.rate < 23 for track in tracks):
        said.append("the film has fewer than 24 pictures a second: film at 25 or more")
    if min(mean_pixels(track) for track in tracks) < 60:
        said.append("the face is small: film closer, so that the eyes are 100 pixels apart or more")
    silent = [track.points[track.usable & ~track.speech] for track in tracks]
    if sum(map(len, silent)) < 5 * FRAME_RATE:
        said.append("the mouth is hardly ever silent: film 20 s of listening with the mouth closed")
    elif _shut_share(np.concatenate(silent)) < 0.2:
        said.append("the mouth is rarely closed, even in silence: film 20 s of silence with closed lips")
    return said


def _shut_share(points: Floats) -> float:
    gap = np.linalg.norm(points[:, face.INNER_UPPER] - points[:, face.INNER_LOWER], axis=-1)
    wide = np.linalg.norm(points[:, face.MOUTH_CORNERS[0]] - points[:, face.MOUTH_CORNERS[1]], axis=-1)
    return float((gap < 0.04 * wide).mean())


# --- The page --------------------------------------------------------------------------------------------------------

STYLE: Final = """
:root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem}
h1{margin-bottom:.2rem}h2{margin-top:2.2rem}table{border-collapse:collapse;font-size:.9rem;display:block;overflow:auto}
td,th{padding:.25rem .7rem;text-align:right;border-bottom:1px solid #8884}td:first-child,th:first-child{text-align:left}
img,video{max-width:100%;border-radius:6px}.warn li{margin:.3rem 0}.big{display:flex;flex-wrap:wrap;gap:1rem}
.big div{border:1px solid #8884;border-radius:8px;padding:.6rem 1rem;min-width:8rem}
.big b{font-size:1.5rem;display:block}
.ok b{color:#2a8a4a}.no b{color:#c4452d}small{opacity:.7}
"""


def page(made: Made, scores: Scores, told: dict[str, Any]) -> str:
    live, truth, painted = scores.motion["live"], scores.motion["truth"], scores.pictures["repainted"]
    tiles = [
        (
            "lips follow the voice",
            f"{live['opening_r']:.2f}",
            "correlation, 0.88 is good",
            round(live["opening_r"], 2) >= 0.88,
        ),
        ("in time", f"{live['sync_ms']:+.0f} ms", "20 is good; + is late", abs(live["sync_ms"]) <= 20),
        (
            "calm in silence",
            f"{live['silence_motion']:.2f}",
            f"the film: {truth['silence_motion']:.2f}",
            live["silence_motion"] <= 2 * truth["silence_motion"],
        ),
        ("lips like the film", f"{painted['lips_psnr']:.1f} dB", "34 is good", painted["lips_psnr"] >= 34),
        (
            "as sharp as the film",
            f"{painted['sharpness']:.2f}",
            "0.8 to 1.2 is good",
            0.8 <= painted["sharpness"] <= 1.2,
        ),
        *_closing(scores),
        ("costs", f"{told['runtime']['core_ms_a_frame']} ms", "of one core, each 40 ms", True),
    ]
    boxes = "".join(
        f'<div class="{"ok" if good else "no"}">{what}<b>{value}</b><small>{hint}</small></div>'
        for what, value, hint, good in tiles
    )
    advice = "".join(f"<li>{html.escape(line)}</li>" for line in told["warnings"])
    parts = [
        f"<h1>{html.escape(made.name)}</h1><p><small>{html.escape(made.quality)}, learned from "
        f"{made.learned_seconds:.0f} s in {made.minutes:.0f} min; look-ahead {made.lookahead} frames; measured on "
        f"{scores.seconds:.0f} s that it has not seen. The pictures of the avatar are AI-generated.</small></p>",
        f'<div class="big">{boxes}</div>',
        f'<h2>What to mend</h2><ul class="warn">{advice}</ul>' if advice else "<h2>Nothing to mend</h2>",
        "<h2>The film, and the avatar with the same voice</h2>",
        f'<video controls loop src="data:video/mp4;base64,{_b64(side_by_side(scores))}"></video>',
        "<p><small>left: the film. right: the avatar live, its loop's head, this voice.</small></p>",
        "<h2>Truth above, repainted below</h2>",
        _image(sheet(scores.sheet)),
        "<h2>Landmarks that were found again on the avatar</h2>",
        _image(overlay(scores)),
        "<h2>The mouth's opening, film and avatar</h2>",
        f'<img src="data:image/png;base64,{_b64(plot(scores))}" alt="opening over time">',
        "<h2>Figures</h2>",
        *(_table(name, rows) for name, rows in _tables(scores)),
        "<h2>The loop</h2>",
        _table("", {"loop": told["loop"]}),
        "<h2>The footage</h2>",
        _table("", _some(told["footage"])),
        _table("degrees", {"head": told["pose_coverage"]}),
    ]
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(made.name)}: report</title><style>{STYLE}</style><body>{''.join(parts)}</body></html>"
    )


def _closing(scores: Scores) -> list[tuple[str, str, str, bool]]:
    """A tile for what pixels show at m, b and p, where it is known when they are said."""
    share = scores.phones.get("live", {}).get("gap_shut", float("nan"))
    return [("lips meet at m b p", f"{share:.2f}", "0.9 is good", share >= 0.9)] if np.isfinite(share) else []


def _tables(scores: Scores) -> list[tuple[str, dict[str, Any]]]:
    tables = [("motion", scores.motion), ("pictures", {**scores.pictures, **PUBLISHED})]
    return [*tables, ("phones", scores.phones)] if scores.phones else tables


def _some(footage: dict[str, Any], most: int = 12) -> dict[str, Any]:
    """Of hundred clips, twelve."""
    names = list(footage)
    return {name: footage[name] for name in names[:most]}


def _table(title: str, rows: dict[str, dict[str, Any]]) -> str:
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    body = "".join(
        f"<tr><td>{html.escape(row)}</td>" + "".join(f"<td>{_cell(figures.get(name))}</td>" for name in names) + "</tr>"
        for row, figures in rows.items()
    )
    return f"<table><tr><th>{html.escape(title)}</th>{head}</tr>{body}</table>"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and not np.isfinite(value):
        return "–"
    return f"{value:.3g}" if isinstance(value, float) else html.escape(str(value))


def _b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _image(picture: Picture) -> str:
    even = picture[: picture.shape[0] // 2 * 2, : picture.shape[1] // 2 * 2]
    return f'<img src="data:image/jpeg;base64,{_b64(jpeg(even, coarsest=4))}" alt="pictures">'


def sheet(pairs: Sequence[tuple[Picture, Picture]], height: int = 220) -> Picture:
    """Truth above, ours below, all as wide as the narrowest: faces are cut out as wide as they are."""
    shown = [(_sized(true, height), _sized(ours, height)) for true, ours in pairs]
    wide = min(one.shape[1] for pair in shown for one in pair)
    columns = [np.concatenate([_centred(one, wide) for one in pair]) for pair in shown]
    columns = [np.pad(column, ((0, 4), (0, 4), (0, 0))) for column in columns]
    rows = []
    for first in range(0, len(columns), 6):
        row = columns[first : first + 6]
        rows.append(np.concatenate([*row, *[np.zeros_like(row[0])] * (min(6, len(columns)) - len(row))], 1))
    return np.concatenate(rows)


def overlay(scores: Scores, count: int = 5) -> Picture:
    """Live pictures with the lips and jaw that MediaPipe found on them."""
    shown = []
    found = [at for at in range(len(scores.film)) if np.isfinite(scores.shown[at]).all()]
    for place in by_opening(np.stack([scores.shown[at] for at in found]), count) if found else []:
        picture, points = scores.film[found[place]][1], scores.shown[found[place]]
        box = face_box(points, picture.shape[1], picture.shape[0])
        scale = OVERLAY_HEIGHT / (box.bottom - box.top)
        large = _sized(box.of(picture), OVERLAY_HEIGHT)
        for index in face.HOUSE[face.HOUSE_SPOKEN]:
            x, y = ((points[index, :2] - (box.left, box.top)) * scale).round().astype(int)
            large[max(0, y - 1) : y + 1, max(0, x - 1) : x + 1] = (80, 255, 120)
        shown.append(large)
    if not shown:
        return np.zeros((OVERLAY_HEIGHT, OVERLAY_HEIGHT, 3), np.uint8)
    return np.concatenate(shown, 1)


def _centred(picture: Picture, width: int) -> Picture:
    """Its middle, so wide."""
    left = (picture.shape[1] - width) // 2
    return picture[:, left : left + width]


def _sized(picture: Picture, height: int) -> Picture:
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
    width = max(2, round(picture.shape[1] * height / picture.shape[0] / 2) * 2)
    return np.asarray(frame.to_ndarray(format="rgb24", width=width, height=height), np.uint8)


def side_by_side(scores: Scores, height: int = 360) -> bytes:
    """MP4 of the first held-out clip: the film, the avatar, and the sound."""
    out = io.BytesIO()
    pairs = scores.film[: FILM_SECONDS * FRAME_RATE]
    with av.open(out, "w", format="mp4") as container:
        video = container.add_stream("libx264", rate=FRAME_RATE, options={"crf": "23", "preset": "veryfast"})
        sound = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        for number, pair in enumerate(pairs):
            both = np.concatenate([_sized(one, height) for one in pair], 1)
            if number == 0:
                video.height, video.width = both.shape[:2]
                video.pix_fmt = "yuv420p"
            frame = av.VideoFrame.from_ndarray(both, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FRAME_RATE)
            container.mux(video.encode(frame))
        container.mux(video.encode())
        pcm = scores.film_audio[: len(pairs) * CHUNK][None].astype(np.float32)
        block = av.AudioFrame.from_ndarray(pcm, format="fltp", layout="mono")
        block.sample_rate, block.pts, block.time_base = SAMPLE_RATE, 0, Fraction(1, SAMPLE_RATE)
        container.mux(sound.encode(block))
        container.mux(sound.encode())
    return out.getvalue()


def plot(scores: Scores, seconds: float = 12.0) -> bytes:
    from matplotlib.figure import Figure

    figure = Figure((10, 2.6))
    axes = figure.subplots()
    true, shown = (np.concatenate(each) for each in zip(*scores.openings, strict=True))
    count = min(len(true), len(shown), round(seconds * FRAME_RATE))
    time = np.arange(count) / FRAME_RATE
    axes.plot(time, true[:count], label="film", color="0.5")
    axes.plot(time, shown[:count], label="avatar, live", color="C0")
    axes.set_xlabel("seconds")
    axes.set_ylabel("opening, %")
    axes.legend(frameon=False)
    figure.tight_layout()
    out = io.BytesIO()
    figure.savefig(out, dpi=110)
    return out.getvalue()
