"""The command line: what each command says of itself, and what is said when one cannot be had."""

import os
import subprocess
import sys
from types import ModuleType

import pytest

from engine import __main__ as command_line
from engine.__main__ import COMMANDS, Command, main


def test_without_a_command_it_says_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    said = capsys.readouterr().out
    for command in COMMANDS:
        assert f"  {command.name:8} {command.what}" in said


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("liveface 0.")


def test_an_unknown_command_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sing"]) == 2
    said = capsys.readouterr().err
    assert "no command 'sing'" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("name", ["serve", "render", "mic", "avatars"])
def test_help_shows_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    assert f"example:\n  liveface {name}" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["serve", "render", "avatars"])
def test_wrong_words_are_status_two(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--no-such-thing"]) == 2
    assert "usage:" in capsys.readouterr().err


def test_every_command_has_an_example_of_itself() -> None:
    assert [command.name for command in COMMANDS] == sorted(
        {c.name for c in COMMANDS}, key=[c.name for c in COMMANDS].index
    )
    for command in COMMANDS:
        assert command.example.startswith(f"liveface {command.name} ")


def test_a_command_that_is_not_built_yet_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command_line, "COMMANDS", (Command("dream", "", "", "engine.dreams.lucid"),))
    assert main(["dream"]) == 2
    assert capsys.readouterr().err == "liveface: `liveface dream` is not part of this version yet\n"


def test_a_command_whose_extra_is_missing_names_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lacking = ModuleType("lacking")

    def run(arguments: object) -> int:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    vars(lacking).update(add_arguments=lambda parser: None, run=run)
    monkeypatch.setitem(sys.modules, "engine.lacking", lacking)
    monkeypatch.setattr(command_line, "_exists", lambda module: True)
    monkeypatch.setattr(command_line, "COMMANDS", (Command("make", "make it", "", "engine.lacking", "create"),))
    assert main(["make"]) == 2
    assert capsys.readouterr().err == 'liveface: `liveface make` needs torch: pip install "liveface[create]"\n'


def test_ctrl_c_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    stopped = ModuleType("stopped")

    def run(arguments: object) -> int:
        raise KeyboardInterrupt

    vars(stopped).update(add_arguments=lambda parser: None, run=run)
    monkeypatch.setitem(sys.modules, "engine.stopped", stopped)
    monkeypatch.setattr(command_line, "_exists", lambda module: True)
    monkeypatch.setattr(command_line, "COMMANDS", (Command("wait", "wait", "", "engine.stopped"),))
    assert main(["wait"]) == 130


def test_help_loads_no_model_and_no_media_stack() -> None:
    """`liveface --help` in a fresh process: nothing heavy is imported before a command is chosen."""
    script = (
        "import sys; from engine.__main__ import main; main(['--help']); "
        "print([name for name in ('torch', 'aiortc', 'av', 'numpy', 'openvino') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.endswith("[]\n")


def test_what_serves_computes_with_one_thread_unless_it_is_told_otherwise() -> None:
    program = "import os, sys; from engine.__main__ import main; main(['serve', '--help']); "
    program += "sys.stderr.write(os.environ['OPENBLAS_NUM_THREADS'] + os.environ['OMP_NUM_THREADS'])"
    given = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    for told, found in (({}, "11"), ({"OMP_NUM_THREADS": "2"}, "12")):
        done = subprocess.run(
            [sys.executable, "-c", program], env=given | told, capture_output=True, text=True, check=True
        )
        assert done.stderr == found


def test_a_reader_that_leaves_early_is_no_traceback() -> None:
    command = f"{sys.executable} -m engine avatars list | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=30, check=False)
    assert "Traceback" not in done.stderr
