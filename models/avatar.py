"""An avatar on disk: what is in a package, who may read it, how it gets into the house. The only reader of packages.

A package is a directory:

    avatar.toml           the card: schema, name, title, kind, synthetic, label, lookahead, licences
    loop.mp4              the reference loop, 25 frames a second
    loop.safetensors      its per-frame arrays (`LOOP`)
    mouths.safetensors    kind "plain": painted mouths to choose from (`MOUTHS`)
    mesh.safetensors      if it has a dense mesh: `MESH`, or `FOLLOWING` of kind "learned"
    weights/, graphs/     kind "learned": safetensors and ONNX; golden.safetensors for the parity check of any backend
    portrait.jpg
    consent.json          who agreed to what, until when; a synthetic presenter needs none
    manifest.json         {"files": {path: SHA-256}}: every other file, nothing else

Nothing in a package is trusted before its SHA-256 matched, and nothing in it is ever code: no pickles, no TensorRT
plans, no links. Installed avatars live under `<shelf>/<name>/<revision>/`, so that a session keeps the revision that
it began with while a newer one is installed.
"""

import hashlib
import io
import json
import os
import re
import shutil
import stat
import struct
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, Final

import av
import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors

from models.rates import BLENDSHAPES, DENSE_POINTS, LOOKAHEAD_DEFAULT, LOOKAHEAD_MOST, POINTS

Bytes = npt.NDArray[np.uint8]
Array = npt.NDArray[Any]
Shape = tuple[int | str, ...]
"""Sizes; a name stands for any size, the same wherever it appears in one file."""
Tensors = Mapping[str, tuple[str, Shape]]
"""Name → dtype as numpy calls it, and shape."""

SCHEMA: Final = 1
NAME: Final = re.compile(r"[a-z0-9_-]{1,64}")
SHIPPED: Final = Path(__file__).parent / "shipped"

MOST_FILES: Final = 256
MOST_FILE_BYTES: Final = 2 << 30
MOST_BYTES: Final = 4 << 30
MOST_RATIO: Final = 200
"""What an archive may unpack to, for a byte of it: video and weights hardly compress, a bomb does."""
MOST_HEADER_BYTES: Final = 1 << 20
MOST_PIXELS: Final = 4096 * 4096
MOST_FRAMES: Final = 25 * 300

ALLOWED_SUFFIXES: Final = {".toml", ".mp4", ".safetensors", ".onnx", ".jpg", ".json", ".md", ".txt"}

LOOP: Final[Tensors] = {
    "mouth_similarity": ("float32", ("frames", 4)),  # a b tx ty: patch pixel → frame pixel
    "points": ("float32", ("frames", POINTS, 3)),  # face.HOUSE in frame pixels
    "head_quaternion": ("float32", ("frames", 4)),  # x y z w
    "head_position": ("float32", ("frames", 3)),  # metres from the loop's mean
    "blink": ("float32", ("frames", 2)),  # the person's left, right
    "weights": ("float32", ("frames", BLENDSHAPES)),  # face.ARKIT_52
}
MOUTHS: Final[Tensors] = {
    "patches": ("uint8", ("mouths", "height", "width", 3)),  # full-range RGB
    "weights": ("float32", ("mouths", BLENDSHAPES)),
    "points": ("float32", ("mouths", POINTS, 3)),  # face.HOUSE in patch pixels
    "lip_gap": ("float32", ("mouths",)),  # patch pixels
    "mask": ("float32", ("height", "width")),
}
MESH: Final[Tensors] = {
    "loop": ("float32", ("frames", DENSE_POINTS, 3)),  # MediaPipe's mesh in frame pixels, the mouth at rest
    "mouths": ("float32", ("mouths", DENSE_POINTS, 3)),  # the same of each mouth, in patch pixels; the first is at rest
}
FOLLOWING: Final[Tensors] = {
    "loop": ("float32", ("frames", DENSE_POINTS, 3)),  # MediaPipe's mesh in frame pixels, as the loop has it
    "follows": ("float32", (DENSE_POINTS, POINTS)),  # how far a vertex goes along with each of face.HOUSE
}


class PackageError(ValueError):
    """The package is not one, or not what it says; one line that names the file."""


class ConsentMissing(PackageError):
    """Nobody has agreed to this face being used so, or no longer. HTTP 403, websocket 4403."""


@dataclass(frozen=True, slots=True)
class Consent:
    """Who agreed to what. Times are unix seconds."""

    subject: str
    scope: str
    granted_at: float
    expires_at: float | None
    withdrawn: bool = False


@dataclass(frozen=True, slots=True)
class Avatar:
    """A package whose card and manifest have been read. Its other files are checked as they are read."""

    folder: Path
    name: str
    title: str
    kind: str
    lookahead: int
    synthetic: bool
    label: str
    revision: str
    """SHA-256 of the manifest, so of everything."""
    files: Mapping[str, str]
    consent: Consent | None
    licences: Mapping[str, str] = field(default_factory=dict)

    def read(self, path: str) -> bytes:
        """A file's bytes, which are what the manifest says: check and use are of one reading."""
        promised = self.files.get(path)
        if promised is None:
            raise PackageError(f"{self.name}: {path} is not in the manifest")
        content = _regular(self.folder, path).read_bytes()
        if hashlib.sha256(content).hexdigest() != promised:
            raise PackageError(f"{self.name}: {path} does not match the manifest: it was changed or cut short")
        return content

    def tensors(self, path: str, expected: Tensors) -> dict[str, Array]:
        """The arrays of a safetensors file, with exactly the names, types and shapes expected."""
        return checked_tensors(f"{self.name}: {path}", self.read(path), expected)

    def verify(self) -> None:
        """Read and check every file. Raises `PackageError` naming the first that is wrong."""
        for path in self.files:
            self.read(path)

    def require_consent(self, now: float) -> None:
        """Raises `ConsentMissing` unless the presenter is synthetic or has agreed, for now (unix seconds)."""
        if self.synthetic:
            return
        again = "ask the person, write consent.json, and seal the package again"
        if self.consent is None:
            raise ConsentMissing(f"{self.name} shows a person and has no consent.json: {again}")
        if self.consent.withdrawn:
            raise ConsentMissing(f"{self.name}: {self.consent.subject} has withdrawn the consent")
        if self.consent.granted_at > now:
            raise ConsentMissing(f"{self.name}: the consent is not valid yet")
        if self.consent.expires_at is not None and self.consent.expires_at <= now:
            raise ConsentMissing(f"{self.name}: the consent has expired: {again}")


def check_name(name: str) -> str:
    """The same, if it can be an avatar's: it becomes a directory and a part of URLs."""
    if not NAME.fullmatch(name):
        known = name.endswith(".avatar") or "/" in name
        hint = f"; is it a package? liveface avatars install {name[:80]}" if known and name.isprintable() else ""
        raise PackageError(f"an avatar's name is 1 to 64 of a-z, 0-9, _ and -, not {name[:80]!r}{hint}")
    return name


def read_avatar(folder: Path) -> Avatar:
    """Read the card and the manifest. Cheap; raises `PackageError`. `verify` checks the rest."""
    manifest = _regular(folder, "manifest.json").read_bytes()
    listed = _json(manifest, "manifest.json").get("files")
    if not isinstance(listed, dict) or not all(
        isinstance(digest, str) and re.fullmatch("[0-9a-f]{64}", digest) for digest in listed.values()
    ):
        raise PackageError(f"{folder.name}: manifest.json lists no files with their SHA-256")
    if len(listed) > MOST_FILES:
        raise PackageError(f"{folder.name}: more than {MOST_FILES} files in a package")
    for path in listed:
        check_path(path)
    found = {str(path.relative_to(folder).as_posix()) for path in folder.rglob("*") if not path.is_dir()}
    for extra in sorted(found - set(listed) - {"manifest.json"}):
        raise PackageError(f"{folder.name}: {extra} is not in the manifest")
    for missing in sorted(set(listed) - found):
        raise PackageError(f"{folder.name}: {missing} is missing")
    bare = Avatar(folder, folder.name, "", "", 0, False, "", hashlib.sha256(manifest).hexdigest(), listed, None)
    card = _toml(bare.read("avatar.toml"))
    consent = read_consent(bare.read("consent.json")) if "consent.json" in listed else None
    schema = card.get("schema")
    if schema != SCHEMA:
        what = "newer than this program: update it" if isinstance(schema, int) and schema > SCHEMA else "unknown"
        raise PackageError(f"{folder.name}: avatar.toml has schema {schema!r}, which is {what}")
    return Avatar(
        folder=folder,
        name=check_name(_text(card, "name")),
        title=_text(card, "title", "")[:200],
        kind=_text(card, "kind"),
        lookahead=_lookahead(card.get("lookahead", LOOKAHEAD_DEFAULT)),
        synthetic=card.get("synthetic", False) is True,
        label=_text(card, "label", "AI")[:40],
        revision=bare.revision,
        files=listed,
        consent=consent,
        licences={str(what): str(licence) for what, licence in card.get("licences", {}).items()},
    )


def seal(folder: Path) -> None:
    """Write the manifest of what is there: the last step of making a package."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / "manifest.json")
    digests = {path.relative_to(folder).as_posix(): file_digest(path) for path in paths}
    write_atomically(folder / "manifest.json", (json.dumps({"files": digests}, indent=2) + "\n").encode())


def file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, content: bytes) -> None:
    """The old content or the new, never a part: written beside, flushed to the disk, renamed over."""
    descriptor, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(beside).chmod(0o644)
        Path(beside).replace(path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise


# What is in the files


def checked_tensors(what: str, content: bytes, expected: Tensors) -> dict[str, Array]:
    """Parse safetensors and hold it to `expected`, before any of it is used. `what` names it in errors."""
    if len(content) < 8 or struct.unpack("<Q", content[:8])[0] > MOST_HEADER_BYTES:
        raise PackageError(f"{what} is no safetensors file, or has a header beyond {MOST_HEADER_BYTES} bytes")
    try:
        arrays: dict[str, Array] = load_safetensors(content)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise PackageError(f"{what} cannot be read: {error}") from error
    if set(arrays) != set(expected):
        odd = sorted(set(arrays) ^ set(expected))[0]
        raise PackageError(f"{what}: {odd!r} is {'missing' if odd in expected else 'not expected'}")
    sizes: dict[str, int] = {}
    for name, (dtype, shape) in expected.items():
        array = arrays[name]
        if array.dtype != dtype or array.ndim != len(shape):
            raise PackageError(f"{what}: {name} is {array.dtype} {list(array.shape)}, not {dtype} {list(shape)}")
        for size, wanted in zip(array.shape, shape, strict=True):
            known = sizes.setdefault(wanted, size) if isinstance(wanted, str) else wanted
            if size != known or size == 0:
                raise PackageError(f"{what}: {name} is {list(array.shape)}, not {list(shape)} with {sizes}")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise PackageError(f"{what}: {name} holds numbers that are not finite")
    return arrays


def decode_loop(avatar: Avatar) -> Bytes:
    """The reference loop in I420, [frames, height * 3 / 2, width], even in both directions."""
    return np.stack(list(loop_frames(avatar)))


def loop_frames(avatar: Avatar) -> Iterator[Bytes]:
    """Its pictures one by one, since a long loop is larger than memory may be."""
    content = io.BytesIO(avatar.read("loop.mp4"))
    frames = 0
    try:
        with av.open(content, "r", format="mp4") as container:
            stream = container.streams.video[0]
            width, height = stream.codec_context.width, stream.codec_context.height
            if width * height > MOST_PIXELS or stream.frames > MOST_FRAMES:
                raise PackageError(f"{avatar.name}: loop.mp4 is beyond {MOST_PIXELS} pixels or {MOST_FRAMES} frames")
            if width % 2 or height % 2:
                raise PackageError(f"{avatar.name}: loop.mp4 is {width}x{height}; both must be even")
            stream.thread_count = 1
            for frame in container.decode(stream):
                if frames == MOST_FRAMES or (frame.width, frame.height) != (width, height):
                    raise PackageError(f"{avatar.name}: loop.mp4 changes its size or has too many frames")
                frames += 1
                yield np.asarray(frame.to_ndarray(format="yuv420p"), np.uint8)
    except (av.FFmpegError, IndexError) as error:
        raise PackageError(f"{avatar.name}: loop.mp4 cannot be decoded: {error}") from error
    if not frames:
        raise PackageError(f"{avatar.name}: loop.mp4 has no pictures")


# The shelf: avatars that are installed


def default_shelf() -> Path:
    """`$XDG_DATA_HOME/liveface/avatars`."""
    base = os.environ.get("XDG_DATA_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".local" / "share") / "liveface" / "avatars"


@dataclass(frozen=True, slots=True)
class Shelf:
    """Installed avatars: `<root>/<name>/<revision>/`, and `<root>/<name>/current` names the revision that serves.

    The shipped ones are found too; an installed avatar of the same name comes first.
    """

    root: Path
    shipped: Path = SHIPPED

    def folder(self, name: str) -> Path:
        """Where the avatar's package is. Raises `PackageError` if there is none."""
        check_name(name)
        current = self.root / name / "current"
        if current.is_file() and not current.is_symlink():
            revision = current.read_text().strip()
            if re.fullmatch("[0-9a-f]{64}", revision):
                return self.root / name / revision
        if (self.shipped / name / "manifest.json").is_file():
            return self.shipped / name
        raise PackageError(f"no avatar is called {name!r}; there are: {', '.join(self.names()) or 'none'}")

    def names(self) -> list[str]:
        installed = [path.parent.name for path in self.root.glob("*/current")]
        shipped = [path.parent.name for path in self.shipped.glob("*/manifest.json")]
        return sorted({name for name in (*installed, *shipped) if NAME.fullmatch(name)})

    def avatar(self, name: str) -> Avatar:
        avatar = read_avatar(self.folder(name))
        if avatar.name != name:
            raise PackageError(f"the package of {name!r} says that it is {avatar.name!r}")
        return avatar

    def install(self, source: Path) -> Avatar:
        """Verify a package, a directory or a packed one, and put it on the shelf as the one that serves."""
        self.root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.root, prefix=".incoming-") as temporary:
            incoming = Path(temporary) / "package"
            if source.is_dir():
                shutil.copytree(source, incoming, symlinks=True)
            else:
                unpack(source, incoming)
            avatar = read_avatar(incoming)
            avatar.verify()
            place = self.root / avatar.name / avatar.revision
            place.parent.mkdir(exist_ok=True)
            if not place.exists():
                try:
                    incoming.rename(place)
                except OSError:  # someone else installed the same revision meanwhile
                    if not place.exists():
                        raise
            write_atomically(place.parent / "current", avatar.revision.encode())
        return read_avatar(place)


# Archives


def pack(folder: Path, archive: Path) -> None:
    """A package as one file, stored rather than compressed, the same bytes for the same package."""
    avatar = read_avatar(folder)
    avatar.verify()
    descriptor, beside = tempfile.mkstemp(dir=archive.parent, prefix=f".{archive.name}.")
    os.close(descriptor)
    try:
        with zipfile.ZipFile(beside, "w", zipfile.ZIP_STORED) as packed:
            for path in sorted([*avatar.files, "manifest.json"]):
                entry = zipfile.ZipInfo(path, (1980, 1, 1, 0, 0, 0))
                entry.external_attr = 0o644 << 16
                packed.writestr(entry, (folder / path).read_bytes())
        Path(beside).chmod(0o644)
        Path(beside).replace(archive)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise


def unpack(archive: Path, folder: Path) -> None:
    """Extract a packed avatar into a new directory. Everything is refused before anything is written."""
    try:
        with zipfile.ZipFile(archive) as packed:
            entries = packed.infolist()
            check_entries([(e.filename, e.file_size, e.compress_size, _oddity(e)) for e in entries])
            folder.mkdir(parents=True)  # what is there already is another's, and stays
            try:
                for entry in entries:
                    target = folder / entry.filename
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with packed.open(entry) as content, target.open("xb") as file:
                        _copy_at_most(content, file, entry.file_size, entry.filename)
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
    except (zipfile.BadZipFile, NotImplementedError, EOFError, OSError, RuntimeError) as error:
        raise PackageError(f"{archive.name} cannot be unpacked: {error}") from error


def check_entries(entries: Sequence[tuple[str, int, int, str]]) -> None:
    """Refuse what an honest package never is: (path, size, packed size, what is odd about it)."""
    if len(entries) > MOST_FILES:
        raise PackageError(f"more than {MOST_FILES} files in a package")
    seen: set[str] = set()
    total = 0
    for path, size, packed_size, odd in entries:
        check_path(path)
        if odd:
            raise PackageError(f"{path[:80]!r} is {odd}")
        if path in seen:
            raise PackageError(f"{path!r} is there twice")
        seen.add(path)
        total += size
        if size > MOST_FILE_BYTES or total > MOST_BYTES or size > MOST_RATIO * max(packed_size, 4096):
            raise PackageError(f"{path!r} unpacks to more than a package may hold")


def check_path(path: str) -> None:
    """A plain relative path inside the package, two folders deep at most, of a kind that packages hold."""
    parts = PurePosixPath(path).parts
    plain = all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", part) for part in parts)
    if not parts or len(parts) > 3 or not plain or "/".join(parts) != path:
        raise PackageError(f"{path[:80]!r} is no path of a package")
    if PurePosixPath(path).suffix not in ALLOWED_SUFFIXES:
        raise PackageError(f"{path[:80]!r} is of a kind that no package holds")


def _oddity(entry: zipfile.ZipInfo) -> str:
    mode = entry.external_attr >> 16
    if entry.flag_bits & 0x1:
        return "encrypted"
    if entry.is_dir() or (mode and not stat.S_ISREG(mode) and stat.S_IFMT(mode)):
        return "no regular file"
    return ""


def _copy_at_most(content: Any, file: Any, size: int, path: str) -> None:
    copied = 0
    while piece := content.read(1 << 20):
        copied += len(piece)
        if copied > size:
            raise PackageError(f"{path!r} is longer than it says")
        file.write(piece)


def _regular(folder: Path, path: str) -> Path:
    """The file, if neither it nor a folder on the way to it is a link."""
    place = folder
    for part in PurePosixPath(path).parts:
        place = place / part
        if place.is_symlink():
            raise PackageError(f"{folder.name}: {path} is a link, which no package holds")
    if not place.is_file():
        raise PackageError(f"{folder.name}: {path} is missing")
    if place.stat().st_size > MOST_FILE_BYTES:
        raise PackageError(f"{folder.name}: {path} is too large")
    return place


def _json(content: bytes, what: str) -> dict[str, Any]:
    try:
        value = json.loads(content) if len(content) <= MOST_HEADER_BYTES else None
    except (ValueError, RecursionError) as error:
        raise PackageError(f"{what} is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise PackageError(f"{what} holds no JSON object, or is too long")
    return value


def _toml(content: bytes) -> dict[str, Any]:
    try:
        return tomllib.loads(content[:MOST_HEADER_BYTES].decode())
    except (ValueError, RecursionError) as error:
        raise PackageError(f"avatar.toml cannot be read: {error}") from error


def _text(card: dict[str, Any], key: str, default: str | None = None) -> str:
    value = card.get(key, default)
    if not isinstance(value, str):
        raise PackageError(f"avatar.toml: {key} must be text")
    return value


def _lookahead(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= LOOKAHEAD_MOST:
        raise PackageError(f"avatar.toml: lookahead must be 0 to {LOOKAHEAD_MOST}, not {value!r}")
    return value


def read_consent(content: bytes) -> Consent:
    """`{"subject", "scope", "granted_at", "expires_at": null or a date, "withdrawn"}`, dates in ISO 8601."""
    told = _json(content, "consent.json")
    subject, scope = told.get("subject"), told.get("scope")
    if not isinstance(subject, str) or not isinstance(scope, str) or not subject or not scope:
        raise PackageError("consent.json must name its subject and its scope")
    expires = told.get("expires_at")
    return Consent(
        subject=subject[:200],
        scope=scope[:2000],
        granted_at=_date(told.get("granted_at"), "granted_at"),
        expires_at=None if expires is None else _date(expires, "expires_at"),
        withdrawn=told.get("withdrawn", False) is not False,
    )


def _date(value: object, key: str) -> float:
    try:
        date = datetime.fromisoformat(value if isinstance(value, str) else "")
    except ValueError as error:
        raise PackageError(f"consent.json: {key} must be a date such as 2026-11-20T00:00:00Z") from error
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()


def walk(shelf: Shelf) -> Iterator[tuple[str, Avatar | PackageError]]:
    """Every avatar of a shelf, or what is wrong with it."""
    for name in shelf.names():
        try:
            yield name, shelf.avatar(name)
        except PackageError as error:
            yield name, error
