"""`liveface avatars`, on the shipped packages and on damaged copies of them."""

import json
import shutil
import zipfile
from pathlib import Path

import pytest

from engine.__main__ import main
from models.avatar import SHIPPED

DEMO = SHIPPED / "demo"


def test_the_shipped_avatar_is_listed_inspected_and_as_sealed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["avatars", "list"]) == 0
    assert "demo" in capsys.readouterr().out
    assert main(["avatars", "list", "--json"]) == 0
    assert "demo" in [each["name"] for each in json.loads(capsys.readouterr().out)]
    assert main(["avatars", "inspect", "demo", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["name"], facts["synthetic"]) == ("demo", True)
    assert main(["avatars", "inspect", "demo"]) == 0
    assert "revision" in capsys.readouterr().out
    assert main(["avatars", "verify", "demo", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ok"] is True


def test_one_flipped_bit_is_found_and_its_file_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    package = tmp_path / "demo"
    shutil.copytree(DEMO, package)
    content = bytearray((package / "portrait.jpg").read_bytes())
    content[100] ^= 1
    (package / "portrait.jpg").write_bytes(content)
    assert main(["avatars", "verify", str(package)]) == 1
    said = capsys.readouterr().err
    assert "portrait.jpg does not match" in said
    assert said.count("\n") == 1


def test_a_package_travels_as_one_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, shelf = tmp_path / "demo.avatar", tmp_path / "shelf"
    assert main(["avatars", "pack", "demo", str(file)]) == 0
    assert main(["avatars", "install", str(file), "--avatars-dir", str(shelf)]) == 0
    capsys.readouterr()
    assert main(["avatars", "inspect", "demo", "--avatars-dir", str(shelf), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["folder"].startswith(str(shelf))


def test_a_packed_one_is_looked_into_and_unpacked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, folder = tmp_path / "demo.avatar", tmp_path / "again"
    assert main(["avatars", "pack", "demo", str(file)]) == 0
    assert main(["avatars", "verify", str(file)]) == 0
    capsys.readouterr()
    assert main(["avatars", "inspect", str(file), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["name"], facts["folder"]) == ("demo", None)
    assert main(["avatars", "unpack", str(file), str(folder)]) == 0
    assert main(["avatars", "verify", str(folder)]) == 0
    file.write_bytes(file.read_bytes()[:-500])
    capsys.readouterr()
    assert main(["avatars", "unpack", str(file), str(tmp_path / "third")]) == 1
    assert "demo.avatar cannot be unpacked" in capsys.readouterr().err
    assert not (tmp_path / "third").exists()


def test_a_package_that_is_named_where_a_name_is_wanted_is_to_be_installed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--avatar", "demo.avatar", "--port", "0", "--ws-port", "0"]) == 1
    assert "liveface avatars install demo.avatar" in capsys.readouterr().err


def test_a_packed_one_that_was_changed_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "demo.avatar"
    assert main(["avatars", "pack", "demo", str(file)]) == 0
    with zipfile.ZipFile(file) as packed, zipfile.ZipFile(tmp_path / "other.avatar", "w") as changed:
        for name in packed.namelist():
            changed.writestr(name, packed.read(name) + (b"x" if name == "portrait.jpg" else b""))
    assert main(["avatars", "unpack", str(tmp_path / "other.avatar"), str(tmp_path / "new")]) == 1
    assert "portrait.jpg does not match" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_file_that_is_called_as_an_avatar_does_not_stand_in_its_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").write_text("notes")
    assert main(["avatars", "verify", "demo"]) == 0


def test_unpacking_into_what_is_there_already_harms_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, mine = tmp_path / "demo.avatar", tmp_path / "mine"
    assert main(["avatars", "pack", "demo", str(file)]) == 0
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    assert main(["avatars", "unpack", str(file), str(mine)]) == 1
    assert "exists" in capsys.readouterr().err
    assert (mine / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize("name", ["nobody", "../../etc/passwd", "./nowhere", "a\0b"])
def test_what_is_no_avatar_is_one_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["avatars", "inspect", name]) == 1
    said = capsys.readouterr().err
    assert said.startswith("liveface: ")
    assert said.count("\n") == 1
