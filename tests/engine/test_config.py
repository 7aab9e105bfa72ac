"""Command line > environment > file > defaults."""

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from engine.config import Config, ConfigError, Loaded, Secret, add_arguments, load, show


def settle(*arguments: str, environ: dict[str, str] | None = None, file: Path | None = None) -> Loaded:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return load(parser.parse_args([*arguments, *(["--config", str(file)] if file else [])]), environ or {})


@pytest.fixture
def toml(tmp_path):
    def write(text: str) -> Path:
        path = tmp_path / "liveface.toml"
        path.write_text(text)
        return path

    return write


def test_without_anything_the_defaults_hold():
    loaded = settle()
    assert loaded.config == Config()
    assert set(loaded.origins.values()) == {"default"}
    assert loaded.warnings == ()
    assert (loaded.config.host, loaded.config.port, loaded.config.websocket_port) == ("127.0.0.1", 8800, 8801)


def test_the_stronger_source_wins(toml):
    file = toml('port = 1\nslots = 1\nbackend = "file"\n[log]\nformat = "json"\n')
    environ = {"LIVEFACE_PORT": "2", "LIVEFACE_SLOTS": "2"}
    loaded = settle("--port", "3", environ=environ, file=file)
    config = loaded.config
    assert (config.port, config.slots, config.backend, config.log.format) == (3, 2, "file", "json")
    assert loaded.origins["port"] == "--port"
    assert loaded.origins["slots"] == "LIVEFACE_SLOTS"
    assert loaded.origins["backend"] == f"{file}: backend"
    assert loaded.origins["log.level"] == "default"


def test_sections_have_two_underlines_in_the_environment_and_a_dash_as_flags():
    assert settle(environ={"LIVEFACE_LIMITS__ADDRESS_RATE": "0.5"}).config.limits.address_rate == 0.5
    assert settle("--limits-address-rate", "0.5").config.limits.address_rate == 0.5
    assert settle("--log-format", "json").config.log.format == "json"


def test_lists_take_commas_or_repeated_flags(toml):
    expected = ("demo", "anna")
    assert settle("--avatar", "demo", "--avatar", "anna").config.avatar == expected
    assert settle(environ={"LIVEFACE_AVATAR": "demo, anna"}).config.avatar == expected
    assert settle(file=toml('avatar = ["demo", "anna"]')).config.avatar == expected


@pytest.mark.parametrize(("word", "value"), [("1", True), ("yes", True), ("TRUE", True), ("off", False), ("0", False)])
def test_yes_and_no_in_the_environment(word, value):
    assert settle(environ={"LIVEFACE_LABEL": word}).config.label is value


def test_flags_say_no_too(toml):
    assert settle("--no-label").config.label is False
    assert settle("--label", file=toml("label = false")).config.label is True


def test_an_empty_variable_is_unset():
    assert settle(environ={"LIVEFACE_PORT": "", "LIVEFACE_ACCESS__SECRET": ""}).config == Config()


def test_paths_and_what_may_be_unset():
    config = settle(
        environ={"LIVEFACE_AVATARS_DIR": "/somewhere", "LIVEFACE_LOOKAHEAD": "0", "LIVEFACE_WS_PORT": "0"}
    ).config
    assert config.avatars_dir == Path("/somewhere")
    assert config.lookahead == 0
    assert config.websocket_port == 0


@pytest.mark.parametrize(
    ("arguments", "environ", "text", "says"),
    [
        (["--port", "abc"], {}, "", "--port: 'abc' is not a whole number"),
        (["--port", "65536"], {}, "", "--port: 65536 is not between 0 and 65535"),
        ([], {"LIVEFACE_SLOTS": "0"}, "", "LIVEFACE_SLOTS: 0 is not between 1 and 4096"),
        ([], {"LIVEFACE_LIMITS__ADDRESS_RATE": "nan"}, "", "LIVEFACE_LIMITS__ADDRESS_RATE: 'nan' is not a number"),
        ([], {"LIVEFACE_DEADLINES__DRAIN": "inf"}, "", "LIVEFACE_DEADLINES__DRAIN: 'inf' is not a number"),
        ([], {"LIVEFACE_DEADLINES__DRAIN": "-1"}, "", "LIVEFACE_DEADLINES__DRAIN: -1.0 is not at least 0"),
        ([], {"LIVEFACE_LABEL": "maybe"}, "", "LIVEFACE_LABEL: 'maybe' is neither true nor false"),
        (["--log-format", "xml"], {}, "", "--log-format: 'xml' is none of text, json"),
        ([], {}, "port = 'x'", "FILE: port: 'x' is not a whole number"),
        ([], {}, "port = 1.5", "FILE: port: 1.5 is not a whole number"),
        ([], {}, "port = true", "FILE: port: True is not a whole number"),
        ([], {}, "host = 3", "FILE: host: 3 is not a text"),
        ([], {}, "avatar = [1]", "FILE: avatar: [1] is not a list of texts"),
        ([], {}, "prot = 1", "FILE: prot is no setting: did you mean port?"),
        ([], {}, "[log]\nformat = 'yaml'", "FILE: log.format: 'yaml' is none of text, json"),
        ([], {}, "[lgo]\nformat = 'json'", "FILE: lgo.format is no setting: did you mean log.format?"),
        ([], {}, "port = ", "FILE: Invalid value"),
        ([], {}, "[access]\nsecret = 'x'", "FILE: access.secret does not belong in a file that is shown"),
    ],
)
def test_a_bad_value_is_one_line_that_names_its_source(toml, arguments, environ, text, says):
    file = toml(text) if text else None
    with pytest.raises(ConfigError) as raised:
        settle(*arguments, environ=environ, file=file)
    message = str(raised.value).replace(str(file), "FILE")
    assert message.startswith(says)
    assert "\n" not in message


def test_a_file_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match=r"--config: cannot read .*: No such file"):
        settle(file=tmp_path / "none.toml")


def test_a_variable_that_means_nothing_is_a_warning():
    loaded = settle(environ={"LIVEFACE_PROT": "1", "LIVEFACE_ACCESS__SECRET_FILES": "x", "OTHER": "1"})
    assert loaded.warnings == (
        "LIVEFACE_ACCESS__SECRET_FILES is no setting: did you mean LIVEFACE_ACCESS__SECRET_FILE?",
        "LIVEFACE_PROT is no setting: did you mean LIVEFACE_PORT?",
    )


# Secrets


def test_a_secret_comes_from_the_environment_or_from_a_file_that_is_named(tmp_path, toml):
    kept = tmp_path / "secret"
    kept.write_text("from a file\n")
    assert settle(environ={"LIVEFACE_ACCESS__SECRET": "direct"}).config.access.secret == Secret("direct")
    for loaded in (
        settle(environ={"LIVEFACE_ACCESS__SECRET_FILE": str(kept)}),
        settle("--access-secret-file", str(kept)),
        settle(file=toml(f"[access]\nsecret_file = '{kept}'")),
    ):
        assert loaded.config.access.secret == Secret("from a file")


def test_a_secret_is_never_a_flag():
    with pytest.raises(SystemExit):
        settle("--access-secret", "x")


@pytest.mark.parametrize(
    ("content", "says"), [(None, "No such file"), (b"", "is empty"), (b"\xff\xfe", "it is not text")]
)
def test_a_secret_file_that_cannot_be_used_is_one_line(tmp_path, content, says):
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=f"^LIVEFACE_TURN__SECRET_FILE: .*{says}"):
        settle(environ={"LIVEFACE_TURN__SECRET_FILE": str(path)})


def test_a_secret_given_twice_is_refused():
    with pytest.raises(ConfigError, match="both set"):
        settle(environ={"LIVEFACE_ACCESS__SECRET": "a", "LIVEFACE_ACCESS__SECRET_FILE": "b"})


def test_nothing_shows_a_secret():
    loaded = settle(environ={"LIVEFACE_ACCESS__SECRET": "verysecret"})
    for shown in (show(loaded), repr(loaded), str(loaded.config.access.secret), f"{loaded.config}"):
        assert "verysecret" not in shown
    assert "# secret is set  # LIVEFACE_ACCESS__SECRET" in show(loaded)


# --print-config


def test_what_is_shown_can_be_read_back(toml):
    loaded = settle("--avatar", 'a"b', "--host-address", "ä", "--no-label", "--limits-token-rate", "0.25")
    again = settle(file=toml(show(loaded)))
    assert again.config == loaded.config
    assert "label = false  # --no-label" in show(loaded) or "label = false  # --label" in show(loaded)


def test_every_setting_has_a_flag_with_help_and_the_parser_reads_none_of_them_by_itself():
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    text = parser.format_help()
    assert "(default: 8800)" in text
    assert set(vars(parser.parse_args([]))) == {"config", "print_config"}


def test_it_needs_no_package():
    program = "import sys, engine.config; print(sorted({'numpy','aiohttp','torch','av'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout.strip() == "[]"
