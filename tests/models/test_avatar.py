"""Packages: what is in them is what was sealed, and what is hostile never gets past the door (D1-D8)."""

import json
import os
import pickle
import shutil
import stat
import struct
import threading
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save, save_file

from models import avatar as module
from models.avatar import (
    LOOP,
    MOUTHS,
    NAME,
    ConsentMissing,
    PackageError,
    Shelf,
    check_entries,
    check_name,
    check_path,
    checked_tensors,
    decode_loop,
    default_shelf,
    pack,
    read_avatar,
    seal,
    unpack,
    walk,
    write_atomically,
)
from tests.models.runtime.drawn import draw_package

NOW = datetime(2026, 11, 20, tzinfo=UTC).timestamp()


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return draw_package(tmp_path / "ellipse")


def edit_card(package: Path, change: Callable[[str], str]) -> None:
    card = package / "avatar.toml"
    card.write_text(change(card.read_text()))
    seal(package)


# Reading


def test_a_sealed_package_reads_back_as_it_was_written(package: Path) -> None:
    avatar = read_avatar(package)
    avatar.verify()
    assert (avatar.name, avatar.kind, avatar.lookahead, avatar.synthetic, avatar.label) == (
        "ellipse",
        "plain",
        2,
        True,
        "AI",
    )
    assert avatar.licences == {"pictures": "Apache-2.0"}
    assert decode_loop(avatar).shape == (8, 192, 128)
    assert avatar.tensors("loop.safetensors", LOOP)["points"].shape == (8, 131, 3)
    assert avatar.tensors("mouths.safetensors", MOUTHS)["mask"].dtype == np.float32


def test_the_shipped_avatars_are_whole() -> None:
    names = [path.parent.name for path in module.SHIPPED.glob("*/manifest.json")]
    for name in names:
        shipped = Shelf(Path("/nonexistent")).avatar(name)
        shipped.verify()
        shipped.require_consent(NOW)


def test_the_revision_changes_with_any_byte_of_any_file(package: Path) -> None:
    before = read_avatar(package).revision
    edit_card(package, lambda card: card.replace("An ellipse", "an ellipse"))
    assert read_avatar(package).revision != before


@pytest.mark.parametrize("file", ["avatar.toml", "loop.mp4", "loop.safetensors", "mouths.safetensors", "portrait.jpg"])
@pytest.mark.parametrize("harm", ["flip", "cut", "swap", "remove"])
def test_a_file_that_was_changed_cut_swapped_or_removed_is_named(package: Path, file: str, harm: str) -> None:
    path = package / file
    content = bytearray(path.read_bytes())
    if harm == "flip":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif harm == "cut":
        path.write_bytes(content[:-1])
    elif harm == "swap":
        other = package / ("loop.mp4" if file != "loop.mp4" else "portrait.jpg")
        path.write_bytes(other.read_bytes())
    else:
        path.unlink()
    with pytest.raises(PackageError, match=file.replace(".", r"\.")):
        read_avatar(package).verify()


def test_a_file_that_the_manifest_does_not_know_is_refused(package: Path) -> None:
    (package / "extra.json").write_text("{}")
    with pytest.raises(PackageError, match=r"extra\.json is not in the manifest"):
        read_avatar(package)


def test_a_link_in_a_package_is_refused_even_to_the_right_content(package: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.mp4"
    (package / "loop.mp4").rename(outside)
    (package / "loop.mp4").symlink_to(outside)
    with pytest.raises(PackageError, match="is a link"):
        read_avatar(package).verify()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda card: card.replace("schema = 1", "schema = 2"), "newer than this program"),
        (lambda card: card.replace("schema = 1", "schema = 0"), "schema 0, which is unknown"),
        (lambda card: card.replace("schema = 1", ""), "schema None"),
        (lambda card: card.replace('name = "ellipse"', 'name = "../ellipse"'), "name is 1 to 64"),
        (lambda card: card.replace('name = "ellipse"', "name = 7"), "name must be text"),
        (lambda card: card.replace("lookahead = 2", "lookahead = 6"), "lookahead must be 0 to 5"),
        (lambda card: card.replace("lookahead = 2", "lookahead = true"), "lookahead must be 0 to 5"),
        (lambda card: "[" * 5000, "cannot be read"),
    ],
)
def test_a_card_that_is_wrong_is_refused_with_its_reason(
    package: Path, change: Callable[[str], str], complaint: str
) -> None:
    edit_card(package, change)
    with pytest.raises(PackageError, match=complaint):
        read_avatar(package)


@pytest.mark.parametrize("manifest", ["", "[]", "{}", '{"files": []}', '{"files": {"a.json": "00"}}', "[" * 100_000])
def test_a_manifest_that_is_none_is_refused(package: Path, manifest: str) -> None:
    (package / "manifest.json").write_text(manifest)
    with pytest.raises(PackageError, match="manifest"):
        read_avatar(package)


@given(st.text(max_size=80))
def test_no_name_leads_out_of_the_shelf(name: str) -> None:
    if NAME.fullmatch(name):
        assert check_name(name) == name
    else:
        with pytest.raises(PackageError):
            check_name(name)


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc", "a\0b", "%2e%2e%2f", "dеmo", "demo\n", "", "A", "a" * 65])
def test_names_of_the_usual_attacks_are_refused(name: str) -> None:
    with pytest.raises(PackageError):
        Shelf(Path("/nonexistent")).folder(name)


# Tensors


def tensors(**changes: np.ndarray | None) -> bytes:
    arrays: dict[str, np.ndarray | None] = {"a": np.ones((2, 3), np.float32), "b": np.ones((2,), np.uint8), **changes}
    return save({name: array for name, array in arrays.items() if array is not None})


EXPECTED = {"a": ("float32", ("n", 3)), "b": ("uint8", ("n",))}


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"b": None}, "'b' is missing"),
        ({"c": np.ones(1, np.float32)}, "'c' is not expected"),
        ({"a": np.ones((2, 3), np.float64)}, "a is float64"),
        ({"a": np.ones((2, 4), np.float32)}, r"a is \[2, 4\]"),
        ({"b": np.ones((3,), np.uint8)}, r"b is \[3\]"),
        ({"a": np.ones((2, 3, 1), np.float32)}, "a is float32"),
        ({"a": np.full((2, 3), np.nan, np.float32)}, "not finite"),
        ({"a": np.ones((0, 3), np.float32), "b": np.ones((0,), np.uint8)}, r"a is \[0, 3\]"),
    ],
)
def test_tensors_have_exactly_the_expected_names_types_and_shapes(
    changes: dict[str, np.ndarray | None], complaint: str
) -> None:
    assert set(checked_tensors("file", tensors(), EXPECTED)) == {"a", "b"}
    with pytest.raises(PackageError, match=complaint):
        checked_tensors("file", tensors(**changes), EXPECTED)


def with_header(header: object, length: int | None = None) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + bytes(26)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 7,
        with_header({}, 1 << 62),
        with_header({}, 100),
        with_header([1, 2]),
        with_header({"a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 999]}}),
        with_header(
            {
                "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
                "b": {"dtype": "U8", "shape": [2], "data_offsets": [4, 6]},
            }
        ),
        with_header({"a": {"dtype": "F32", "shape": [1 << 40, 1 << 40], "data_offsets": [0, 24]}}),
        with_header({"a": {"dtype": "NO", "shape": [2, 3], "data_offsets": [0, 24]}}),
        pickle.dumps({"a": 1}),
    ],
)
def test_a_hostile_header_is_a_refusal_and_nothing_else(content: bytes) -> None:
    with pytest.raises(PackageError):
        checked_tensors("file", content, EXPECTED)


class Bomb:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.mark,))


def test_a_pickle_is_never_run(package: Path, tmp_path: Path) -> None:
    mark = tmp_path / "it ran"
    (package / "mouths.safetensors").write_bytes(pickle.dumps(Bomb(mark)))
    seal(package)
    with pytest.raises(PackageError):
        read_avatar(package).tensors("mouths.safetensors", MOUTHS)
    (package / "weights.pt").write_bytes(pickle.dumps(Bomb(mark)))
    seal(package)
    with pytest.raises(PackageError, match="of a kind that no package holds"):
        read_avatar(package)
    assert not mark.exists()


def test_a_loop_that_is_no_video_or_too_large_is_refused(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_PIXELS", 128 * 127)
    with pytest.raises(PackageError, match=r"loop\.mp4 is beyond"):
        decode_loop(read_avatar(package))
    (package / "loop.mp4").write_bytes(b"\0" * 1000)
    seal(package)
    with pytest.raises(PackageError, match=r"loop\.mp4 cannot be decoded"):
        decode_loop(read_avatar(package))


# Consent


def consented(package: Path, **told: object) -> None:
    shutil.rmtree(package)
    draw_package(package, synthetic=False)
    whole = {"subject": "Ada", "scope": "demo", "granted_at": "2026-01-01T00:00:00Z", "expires_at": None, **told}
    (package / "consent.json").write_text(json.dumps(whole))
    seal(package)


def test_a_synthetic_presenter_needs_no_consent(package: Path) -> None:
    read_avatar(package).require_consent(NOW)


def test_a_person_who_agreed_is_served(package: Path) -> None:
    consented(package, expires_at="2026-11-21T00:00:00+00:00")
    read_avatar(package).require_consent(NOW)


@pytest.mark.parametrize(
    ("told", "complaint"),
    [
        ({"expires_at": "2026-11-19"}, "has expired"),
        ({"granted_at": "2027-01-01"}, "not valid yet"),
        ({"withdrawn": True}, "Ada has withdrawn"),
        ({"withdrawn": "yes"}, "Ada has withdrawn"),
    ],
)
def test_consent_that_is_over_or_not_yet_or_withdrawn_is_none(
    package: Path, told: dict[str, object], complaint: str
) -> None:
    consented(package, **told)
    with pytest.raises(ConsentMissing, match=complaint):
        read_avatar(package).require_consent(NOW)


def test_a_person_without_consent_is_not_served(package: Path) -> None:
    consented(package)
    (package / "consent.json").unlink()
    seal(package)
    with pytest.raises(ConsentMissing, match=r"no consent\.json"):
        read_avatar(package).require_consent(NOW)


@pytest.mark.parametrize("told", [{"granted_at": None}, {"granted_at": "soon"}, {"subject": ""}, {"expires_at": 7}])
def test_consent_that_says_nothing_is_refused(package: Path, told: dict[str, object]) -> None:
    consented(package, **told)
    with pytest.raises(PackageError, match=r"consent\.json"):
        read_avatar(package)


# The shelf and archives


def test_installing_keeps_the_revision_that_a_session_began_with(package: Path, tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "shelf", shipped=tmp_path / "none")
    first = shelf.install(package)
    edit_card(package, lambda card: card.replace("An ellipse", "Another"))
    second = shelf.install(package)
    assert shelf.avatar("ellipse").revision == second.revision != first.revision
    first.verify()
    assert shelf.install(package).revision == second.revision
    assert shelf.names() == ["ellipse"]
    assert not list(shelf.root.glob(".incoming*"))


def test_the_shelf_falls_back_on_what_is_shipped_and_says_what_there_is(package: Path, tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "shelf", shipped=package.parent)
    assert shelf.folder("ellipse") == package
    with pytest.raises(PackageError, match="no avatar is called 'egg'; there are: ellipse"):
        shelf.folder("egg")


def test_a_package_that_calls_itself_otherwise_is_refused(package: Path, tmp_path: Path) -> None:
    shutil.copytree(package, tmp_path / "shipped" / "egg")
    shelf = Shelf(tmp_path / "shelf", shipped=tmp_path / "shipped")
    ((name, error),) = walk(shelf)
    assert name == "egg"
    assert "says that it is 'ellipse'" in str(error)


def test_two_who_install_at_once_both_succeed(package: Path, tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "shelf")
    revisions: list[str] = []
    threads = [threading.Thread(target=lambda: revisions.append(shelf.install(package).revision)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(revisions) == 4
    assert len(set(revisions)) == 1
    shelf.avatar("ellipse").verify()


def test_the_shelf_is_where_the_user_keeps_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", "/srv/data")
    assert default_shelf() == Path("/srv/data/liveface/avatars")
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    assert default_shelf() == Path.home() / ".local/share/liveface/avatars"


def test_a_packed_avatar_unpacks_to_the_same_and_packs_to_the_same_bytes(package: Path, tmp_path: Path) -> None:
    pack(package, tmp_path / "one.zip")
    unpack(tmp_path / "one.zip", tmp_path / "again")
    pack(tmp_path / "again", tmp_path / "two.zip")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    shelf = Shelf(tmp_path / "shelf")
    assert shelf.install(tmp_path / "one.zip").revision == read_avatar(package).revision


def test_a_write_that_fails_leaves_the_old_content_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file.json"
    write_atomically(path, b"old")

    def full(_: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "path",
    [
        "../x.json",
        "/x.json",
        "a/../../x.json",
        "a//x.json",
        "./x.json",
        "C:\\x.json",
        "a\\x.json",
        "x.json/",
        "",
        "x\x00.json",
        ".hidden.json",
        "a/b/c/d.json",
        "x.pt",
        "x.pkl",
        "x.npy",
        "x.plan",
        "x.engine",
        "x.py",
        "x",
        "é.json",
    ],
)
def test_paths_that_no_package_holds_are_refused(path: str) -> None:
    with pytest.raises(PackageError):
        check_path(path)


@given(st.text(max_size=60))
def test_a_path_that_passes_stays_in_its_folder(path: str) -> None:
    try:
        check_path(path)
    except PackageError:
        return
    assert (Path("/shelf/x") / path).resolve().is_relative_to("/shelf/x")


@pytest.mark.parametrize(
    "entries",
    [
        [(f"a{n}.json", 1, 1, "") for n in range(257)],
        [("a.json", 1, 1, ""), ("a.json", 1, 1, "")],
        [("a.json", 1 << 30, 1 << 10, "")],
        [("a.json", 3 << 30, 3 << 30, "")],
        [("a.json", 2 << 30, 2 << 30, ""), ("b.json", 2 << 30, 2 << 30, ""), ("c.json", 1 << 20, 1 << 20, "")],
        [("a.json", 1, 1, "encrypted")],
    ],
)
def test_bombs_duplicates_and_locks_are_refused_before_anything_is_written(
    entries: list[tuple[str, int, int, str]],
) -> None:
    with pytest.raises(PackageError):
        check_entries(entries)


def test_hostile_archives_leave_nothing(tmp_path: Path) -> None:
    def archive(name: str, *entries: tuple[zipfile.ZipInfo | str, bytes], how: int = zipfile.ZIP_STORED) -> Path:
        path = tmp_path / name
        with zipfile.ZipFile(path, "w", how) as packed:
            for entry, content in entries:
                packed.writestr(entry, content, how)
        return path

    link = zipfile.ZipInfo("loop.mp4")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    honest = archive("lies.zip", ("a.json", b"{}" * 5000))
    liar = bytearray(honest.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = liar.rindex(signature) + offset
        liar[at : at + 4] = struct.pack("<I", 10)
    (tmp_path / "lies.zip").write_bytes(liar)
    locked = archive("locked.zip", ("a.json", b"{}"))
    content = bytearray(locked.read_bytes())
    content[content.rindex(b"PK\x01\x02") + 8] |= 1
    locked.write_bytes(content)
    (tmp_path / "noise.zip").write_bytes(os.urandom(500))
    archive("slip.zip", ("../outside.json", b"{}"))
    archive("link.zip", (link, b"/etc/passwd"))
    archive("bomb.zip", ("a.json", bytes(20 << 20)), how=zipfile.ZIP_DEFLATED)
    for hostile in tmp_path.glob("*.zip"):
        with pytest.raises(PackageError):
            unpack(hostile, tmp_path / "target")
        assert not (tmp_path / "target").exists(), hostile.name
    assert not (tmp_path / "outside.json").exists()


def test_a_failed_install_leaves_the_shelf_as_it_was(package: Path, tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "shelf", shipped=tmp_path / "none")
    shelf.install(package)
    save_file({"x": np.ones(1, np.float32)}, str(package / "loop.safetensors"))
    with pytest.raises(PackageError):
        shelf.install(package)
    assert [path.name for path in shelf.root.iterdir()] == ["ellipse"]
    shelf.avatar("ellipse").verify()
