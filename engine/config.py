"""What `liveface serve` is told: command line > environment > TOML file > defaults. Pure but for reading files.

A setting `format` of section `log` is `--log-format`, `LIVEFACE_LOG__FORMAT`, and in the file `[log]` with `format =`.
Lists take commas in the environment and repeated flags on the command line; "" means unset. A secret is never a flag,
because every user of the machine can read those: it comes as `LIVEFACE_ACCESS__SECRET`, or from a file that
`LIVEFACE_ACCESS__SECRET_FILE`, `--access-secret-file` or `secret_file =` names.

A bad value raises `ConfigError` with one line that names where it came from. A `LIVEFACE_` variable that means nothing
is a warning, for other programs may read it; a key of the file that means nothing is an error, for nobody else does.
"""

import argparse
import difflib
import json
import math
import tomllib
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

PREFIX = "LIVEFACE_"


class ConfigError(ValueError):
    """One line: where the value came from, what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Secret:
    """A value that no log, trace or `--print-config` shows."""

    value: str = field(repr=False)

    def __str__(self) -> str:
        return "********"


@dataclass(frozen=True, slots=True)
class Says:
    """What a setting is for, and its bounds."""

    text: str
    least: float | None = None
    most: float | None = None


@dataclass(frozen=True, slots=True)
class Access:
    secret: Annotated[Secret | None, Says("signs tokens; needed on any address but loopback")] = None
    anyone: Annotated[bool, Says("serve without tokens on an address that others can reach")] = False
    origins: Annotated[
        tuple[str, ...], Says("web origins that may connect besides our own pages, as https://example.org")
    ] = ()


@dataclass(frozen=True, slots=True)
class Turn:
    urls: Annotated[tuple[str, ...], Says("TURN and STUN servers that clients are told of")] = ()
    secret: Annotated[Secret | None, Says("the shared secret of coturn's use-auth-secret")] = None
    seconds: Annotated[int, Says("how long TURN credentials live", least=60)] = 3_600


@dataclass(frozen=True, slots=True)
class Limits:
    """Requests that open something: a second, and at once."""

    address_rate: Annotated[float, Says("per client address, a second", least=0.01)] = 2.0
    address_burst: Annotated[float, Says("per client address, at once", least=1)] = 20.0
    token_rate: Annotated[float, Says("per token, a second", least=0.01)] = 2.0
    token_burst: Annotated[float, Says("per token, at once", least=1)] = 20.0
    total_rate: Annotated[float, Says("of all clients, a second", least=0.01)] = 50.0
    total_burst: Annotated[float, Says("of all clients, at once", least=1)] = 200.0


@dataclass(frozen=True, slots=True)
class Media:
    ports: Annotated[str | None, Says("UDP ports for media, as 50000-50199; any free ones when unset")] = None
    codecs: Annotated[tuple[str, ...], Says("of the picture, the preferred one first: VP8, H264")] = ("VP8", "H264")
    bitrate: Annotated[int, Says("bits per second of a picture stream at most", 120_000, 4_000_000)] = 800_000
    encode_threads: Annotated[int, Says("threads that encode sound and pictures", 1, 64)] = 2


@dataclass(frozen=True, slots=True)
class Deadlines:
    first_media: Annotated[float, Says("seconds from an answer to its first media", least=1)] = 15.0
    silent: Annotated[float, Says("seconds without media until a connection is closed", least=1)] = 10.0
    drain: Annotated[float, Says("seconds that running sessions get after SIGTERM", least=0)] = 30.0


@dataclass(frozen=True, slots=True)
class Log:
    level: Annotated[Literal["debug", "info", "warning", "error"], Says("the least that is written")] = "info"
    format: Annotated[Literal["text", "json"], Says("text for people, json for machines: one object a line")] = "text"


@dataclass(frozen=True, slots=True)
class Config:
    avatar: Annotated[tuple[str, ...], Says("avatars to serve; the first is the default one")] = ("demo", "ada")
    avatars_dir: Annotated[Path | None, Says("where your own avatars lie")] = None
    host: Annotated[str, Says("the address to listen on")] = "127.0.0.1"
    port: Annotated[int, Says("HTTP", least=0, most=65_535)] = 8800
    ws_port: Annotated[int | None, Says("websocket; HTTP's + 1 when unset", least=0, most=65_535)] = None
    host_address: Annotated[str | None, Says("the address that media candidates advertise")] = None
    slots: Annotated[int, Says("sessions at one time", least=1, most=4_096)] = 4
    backend: Annotated[str, Says("what runs the model: auto, plain, openvino, …")] = "auto"
    runtime: Annotated[Literal["process", "inline"], Says("where the model runs; inline is for debugging")] = "process"
    lookahead: Annotated[
        int | None, Says("frames of future sound the model sees; the avatar's own when unset", 0, 5)
    ] = None
    label: Annotated[bool, Says("mark the picture as synthetic")] = True
    allow_unconsented: Annotated[bool, Says("serve synthetic avatars without a consent record")] = False
    probe: Annotated[bool, Says("stamp every picture with its number, for `liveface bench latency`")] = False
    access: Access = field(default_factory=Access)
    turn: Turn = field(default_factory=Turn)
    limits: Limits = field(default_factory=Limits)
    media: Media = field(default_factory=Media)
    deadlines: Deadlines = field(default_factory=Deadlines)
    log: Log = field(default_factory=Log)

    @property
    def websocket_port(self) -> int:
        """0 picks a free port, as HTTP's 0 does."""
        return self.ws_port if self.ws_port is not None else self.port and self.port + 1


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings, where each was found, and what else there is to say."""

    config: Config
    origins: Mapping[str, str]
    """Dotted name → "default", "--port", "LIVEFACE_PORT", "FILE: port"."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Leaf:
    name: str  # dotted
    kind: Any
    default: Any
    says: Says

    @property
    def secret(self) -> bool:
        return Secret in get_args(self.kind)

    @property
    def flag(self) -> str:
        return "--" + self.name.replace(".", "-").replace("_", "-") + ("-file" if self.secret else "")

    @property
    def variable(self) -> str:
        return PREFIX + self.name.upper().replace(".", "__")


def _leaves(kind: type = Config, prefix: str = "") -> Iterator[_Leaf]:
    hints = get_type_hints(kind, include_extras=True)
    for each in fields(kind):
        if is_dataclass(hints[each.name]):
            yield from _leaves(hints[each.name], f"{prefix}{each.name}.")
        else:
            bare, says = get_args(hints[each.name])
            yield _Leaf(prefix + each.name, bare, each.default, says)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A flag for every setting, `--config FILE` and `--print-config`. What is not given is not in the namespace."""
    parser.allow_abbrev = False  # or --access-secret would be taken for --access-secret-file
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings as TOML")
    parser.add_argument("--print-config", action="store_true", help="print every setting and where it came from")
    groups: dict[str, argparse._ArgumentGroup] = {}
    for leaf in _leaves():
        section = leaf.name.rpartition(".")[0]
        group = groups.setdefault(section, parser.add_argument_group(section)) if section else parser
        says = (
            f"{leaf.says.text} (default: {_toml(leaf.default)})" if leaf.default not in (None, ()) else leaf.says.text
        )
        common: dict[str, Any] = {"dest": leaf.name, "default": argparse.SUPPRESS, "help": says.replace("%", "%%")}
        if leaf.kind is bool:
            group.add_argument(leaf.flag, action=argparse.BooleanOptionalAction, **common)
        elif get_origin(leaf.kind) is tuple:
            group.add_argument(leaf.flag, action="append", metavar="TEXT", **common)
        else:
            group.add_argument(leaf.flag, metavar="FILE" if leaf.secret else "VALUE", **common)


def load(arguments: argparse.Namespace, environ: Mapping[str, str]) -> Loaded:
    """Settle every setting. `arguments` come from a parser with `add_arguments`. Raises `ConfigError`."""
    file: Path | None = getattr(arguments, "config", None)
    written = _read(file) if file is not None else {}
    given = vars(arguments)
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    leaves = list(_leaves())
    for leaf in leaves:
        values[leaf.name], origins[leaf.name] = _settle(leaf, given, environ, written, file)
    unknown = sorted(
        set(written) - {leaf.name for leaf in leaves} - {f"{leaf.name}_file" for leaf in leaves if leaf.secret}
    )
    if unknown:
        raise ConfigError(f"{file}: {unknown[0]} is no setting{_nearest(unknown[0], [leaf.name for leaf in leaves])}")
    config = _build(Config, values, "")
    return Loaded(config, origins, tuple(_strange(environ, leaves)))


def show(loaded: Loaded) -> str:
    """Every setting as TOML, with where it came from; secrets are not in it. It can be read back as a file."""
    lines: list[str] = []
    section = ""
    for leaf in _leaves():
        parent, _, name = leaf.name.rpartition(".")
        if parent != section:
            section = parent
            lines.append(f"\n[{section}]")
        value: Any = loaded.config
        for part in leaf.name.split("."):
            value = getattr(value, part)
        unset = value is None or leaf.secret
        text = f"# {name} is {'unset' if value is None else 'set'}" if unset else f"{name} = {_toml(value)}"
        lines.append(f"{text}  # {loaded.origins[leaf.name]}")
    return "\n".join(lines) + "\n"


def _settle(
    leaf: _Leaf, given: Mapping[str, Any], environ: Mapping[str, str], written: Mapping[str, Any], file: Path | None
) -> tuple[Any, str]:
    """The value and where it was found, the strongest source first."""
    file_variable = f"{leaf.variable}_FILE"
    sources: list[tuple[str, Any, bool]] = [(leaf.flag, given.get(leaf.name), leaf.secret)]
    if leaf.secret:
        if environ.get(leaf.variable) and environ.get(file_variable):
            raise ConfigError(f"{leaf.variable} and {file_variable} are both set: keep one")
        sources.append((file_variable, environ.get(file_variable) or None, True))
    sources.append((leaf.variable, environ.get(leaf.variable) or None, False))
    if leaf.secret:
        if leaf.name in written:
            raise ConfigError(f"{file}: {leaf.name} does not belong in a file that is shown: name {leaf.name}_file")
        sources.append((f"{file}: {leaf.name}_file", written.get(f"{leaf.name}_file"), True))
    sources.append((f"{file}: {leaf.name}", written.get(leaf.name), False))
    for origin, raw, is_file in sources:
        if raw is not None:
            return (_secret(origin, raw) if is_file else _convert(leaf, raw, origin)), origin
    return leaf.default, "default"


def _convert(leaf: _Leaf, raw: Any, origin: str) -> Any:
    """`raw` as the setting's type: text from flags and variables, typed from TOML."""
    kind = leaf.kind
    if get_origin(kind) in (Union, types.UnionType):
        kind = next(each for each in get_args(kind) if each is not type(None))
    shown = repr(raw)
    if kind is Secret:
        return Secret(str(raw))
    if get_origin(kind) is tuple:
        parts = raw.split(",") if isinstance(raw, str) else raw
        if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
            raise ConfigError(f"{origin}: {shown} is not a list of texts")
        return tuple(part.strip() for part in parts if part.strip())
    if get_origin(kind) is Literal:
        if raw not in get_args(kind):
            raise ConfigError(f"{origin}: {shown} is none of {', '.join(get_args(kind))}")
        return raw
    if kind is bool:
        word = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
        value = raw if isinstance(raw, bool) else word.get(str(raw).lower())
        if value is None:
            raise ConfigError(f"{origin}: {shown} is neither true nor false")
        return value
    if kind in (int, float):
        return _number(leaf, kind, raw, origin)
    if not isinstance(raw, str):
        raise ConfigError(f"{origin}: {shown} is not a text")
    return kind(raw)


def _number(leaf: _Leaf, kind: Any, raw: Any, origin: str) -> Any:
    try:
        if isinstance(raw, bool) or (kind is int and isinstance(raw, float)):
            raise ValueError
        value = kind(raw)
        if not math.isfinite(value):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise ConfigError(f"{origin}: {raw!r} is not a {'whole ' if kind is int else ''}number") from None
    least, most = leaf.says.least, leaf.says.most
    if not (least is None or value >= least) or not (most is None or value <= most):
        bounds = f"at least {least:g}" if most is None else f"between {least:g} and {most:g}"
        raise ConfigError(f"{origin}: {value} is not {bounds}")
    return value


def _secret(origin: str, path: Any) -> Secret:
    try:
        value = Path(str(path)).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ConfigError(f"{origin}: cannot read {path}: {reason}") from None
    if not value:
        raise ConfigError(f"{origin}: {path} is empty")
    return Secret(value)


def _read(file: Path) -> dict[str, Any]:
    """The file as dotted name → value."""
    try:
        tree = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"--config: cannot read {file}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: {error}") from None
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat.update({f"{name}.{inner}": each for inner, each in value.items()})
        else:
            flat[name] = value
    return flat


def _build(kind: type, values: Mapping[str, Any], prefix: str) -> Any:
    hints = get_type_hints(kind)
    return kind(
        **{
            each.name: _build(hints[each.name], values, f"{prefix}{each.name}.")
            if is_dataclass(hints[each.name])
            else values[prefix + each.name]
            for each in fields(kind)
        }
    )


def _strange(environ: Mapping[str, str], leaves: list[_Leaf]) -> Iterator[str]:
    known = [leaf.variable for leaf in leaves] + [f"{leaf.variable}_FILE" for leaf in leaves if leaf.secret]
    for name in sorted(environ):
        if name.startswith(PREFIX) and name not in known:
            yield f"{name} is no setting{_nearest(name, known)}"


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, 1)
    return f": did you mean {close[0]}?" if close else ""


def _toml(value: Any) -> str:
    """A value as TOML; JSON's texts, numbers and lists are TOML too."""
    return json.dumps(str(value) if isinstance(value, Path) else value, ensure_ascii=False)
