"""Settings: where values come from, and one clear line for each that can't be taken."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from modelyard.errors import SettingsError
from modelyard.settings import FILE_NAME, get_env, load_settings


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))


def write(folder: Path, text: str) -> Path:
    path = folder / FILE_NAME
    path.write_text(text)
    return path


def test_without_a_file_the_defaults_hold(tmp_path: Path) -> None:
    settings = load_settings()
    assert (settings.env, settings.store, settings.gateway.url) == ("development", None, "http://127.0.0.1:7070")
    assert settings.cache == tmp_path / ".cache/modelyard"
    assert "@" in settings.user


def test_the_nearest_file_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / "project/deep/er"
    deep.mkdir(parents=True)
    write(tmp_path, "[gateway]\nport = 1001\n")
    write(tmp_path / "project", 'env = "production"\n[gateway]\nport = 1002\n')
    assert load_settings(deep).gateway.port == 1002
    assert load_settings(tmp_path).gateway.port == 1001
    monkeypatch.chdir(deep)
    assert get_env() == "production"


def test_variables_stand_above_the_file_and_arguments_above_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "[gateway]\nport = 1001\nworkers = 3\n")
    monkeypatch.setenv("MODELYARD_GATEWAY__PORT", "1002")
    assert (load_settings().gateway.port, load_settings().gateway.workers) == (1002, 3)
    assert load_settings(gateway={"port": 1003}).gateway.port == 1003


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", None), ("none", None), ('"50 GiB"', 50 * 2**30), ('"1.5TB"', 1_500_000_000_000), ("1000", 1000)],
)
def test_the_limit_of_the_cache_is_a_size_or_none(text: str, size: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELYARD_CACHE_LIMIT", text.strip('"'))
    assert load_settings().cache_limit == size


@pytest.mark.parametrize("value", ['"a lot"', '"5 apples"', "-1"])
def test_a_limit_that_is_no_size_is_refused(value: str, tmp_path: Path) -> None:
    write(tmp_path, f"cache_limit = {value}")
    with pytest.raises(SettingsError, match=r"setting 'cache_limit.*' from .*mend the value"):
        load_settings()


def test_settings_are_frozen() -> None:
    settings = load_settings()
    with pytest.raises(ValidationError):
        settings.env = "production"  # type: ignore[misc]
    with pytest.raises(ValidationError):
        settings.gateway.port = 1  # type: ignore[misc]


BAD_FILES = {
    "not TOML": (b"port = = 1", "is not valid TOML"),
    "half a line": (b"[gateway", "is not valid TOML"),
    "not UTF-8": (b'store = "\xff\xfe"', "can't be read"),
    "wrong type": (b'[gateway]\nport = "many"', "setting 'gateway.port' from"),
    "out of range": (b"[gateway]\nport = 70000", "it must be at most 65535 (found 70000)"),
    "section is a value": (b"gateway = 1", "setting 'gateway' from"),
    "unknown key": (b"speed = 1", "setting 'speed' from"),
    "unknown key in a section": (b"[gateway]\nspeed = 1", "setting 'gateway.speed' from"),
    "misspelt key": (b"[gateway]\nprot = 1", "gateway has no 'prot'; did you mean port?"),
    "unknown environment": (b'env = "test"', "it must be 'development' or 'production' (found 'test')"),
    "a value of several lines": (b'env = """a\nb"""', "(found 'a\\nb')"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_is_one_line_that_names_it(case: str, tmp_path: Path) -> None:
    content, message = BAD_FILES[case]
    path = tmp_path / FILE_NAME
    path.write_bytes(content)
    with pytest.raises(SettingsError) as failed:
        load_settings()
    assert message in str(failed.value)
    assert str(path) in str(failed.value)
    assert "\n" not in str(failed.value)
    assert failed.value.remedy


def test_a_folder_in_the_place_of_the_file_is_named(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).mkdir()
    with pytest.raises(SettingsError, match=rf"{FILE_NAME} can't be read: it is a folder; rename it"):
        load_settings()


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("MODELYARD_GATEWAY__PORT", "many", "setting 'gateway.port' from MODELYARD_GATEWAY__PORT: "),
        ("MODELYARD_ENV", "test", "setting 'env' from MODELYARD_ENV: "),
        ("MODELYARD_GATEWAY", "{", "gateway"),
        ("MODELYARD_SERVING__DRAIN_TIMEOUT_S", "-1", "from MODELYARD_SERVING__DRAIN_TIMEOUT_S: "),
        (
            "MODELYARD_KUBERNETES__IMAGE",
            "",
            "'kubernetes.image' from MODELYARD_KUBERNETES__IMAGE: it must not be empty (found ''); mend",
        ),
        ("MODELYARD_GATEWAY__SPEED", "1", "setting 'gateway.speed' from MODELYARD_GATEWAY__SPEED: "),
    ],
)
def test_a_bad_variable_is_one_line_that_names_it(
    variable: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as failed:
        load_settings()
    assert message in str(failed.value)
    assert "\n" not in str(failed.value)
