"""Credentials come from where they usually come from, and are never repeated."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelyard.errors import InvalidInput, MissingExtra, ModelyardError, SettingsError
from modelyard.store import S3, Azure, Store, open_store
from modelyard.store.credentials import aws_profile, check_address, redact

SECRET = "wJalr/XUtnFEMI"


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No variable and no profile that says who we are; returns the folder that holds `.aws`."""
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN", "PROFILE", "DEFAULT_PROFILE", "REGION"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def profile(home: Path, keys: str, *, config: str = "[profile lab]\nregion = us-east-1\n") -> None:
    (home / ".aws").mkdir()
    (home / ".aws/config").write_text(config)
    (home / ".aws/credentials").write_text(keys)


LAB = "[lab]\naws_access_key_id = tester\naws_secret_access_key = secret-of-the-tester\n"


def test_a_profile_opens_a_bucket(s3_server: str, nothing_set: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profile(nothing_set, LAB)
    monkeypatch.setenv("AWS_PROFILE", "lab")
    store = S3("yard", "profiles", endpoint_url=s3_server)
    store.put("a", b"1")
    assert store.get("a") == b"1"


def test_the_default_profile_needs_no_name(s3_server: str, nothing_set: Path) -> None:
    profile(nothing_set, LAB.replace("lab", "default"))
    store = S3("yard", "profiles", endpoint_url=s3_server)
    store.put("default", b"1")
    assert store.get("default") == b"1"


def test_variables_stand_above_a_profile(nothing_set: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profile(nothing_set, LAB)
    monkeypatch.setenv("AWS_PROFILE", "lab")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "other")
    assert aws_profile() is None


def test_the_region_of_a_variable_stands_above_that_of_a_profile(
    nothing_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile(nothing_set, LAB)
    monkeypatch.setenv("AWS_PROFILE", "lab")
    assert [found.config for found in [aws_profile()] if found] == [{"region": "us-east-1"}]
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    assert [found.config for found in [aws_profile()] if found] == [{"region": "eu-west-1"}]


def test_without_a_profile_none_is_asked() -> None:
    assert aws_profile() is None


def test_a_profile_that_is_not_there_is_named(nothing_set: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profile(nothing_set, LAB)
    monkeypatch.setenv("AWS_PROFILE", "gone")
    with pytest.raises(SettingsError, match=r"config profile \(gone\) could not be found; check AWS_PROFILE"):
        S3("yard", endpoint_url="http://127.0.0.1:1")


def test_a_profile_whose_program_fails_is_one_line(nothing_set: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = "[profile lab]\nregion = us-east-1\ncredential_process = /bin/false\n"
    profile(nothing_set, "", config=config)
    monkeypatch.setenv("AWS_PROFILE", "lab")
    with pytest.raises(ModelyardError, match="custom-process") as failed:
        S3("yard", endpoint_url="http://127.0.0.1:1").get("a")
    assert "\n" not in str(failed.value)


def test_a_profile_without_boto3_names_the_extra(nothing_set: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profile(nothing_set, LAB)
    original = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] == "boto3":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return original(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, "boto3", raising=False)
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingExtra, match=r"profiles of AWS, is not installed; pip install 'modelyard\[s3\]'"):
        S3("yard", endpoint_url="http://127.0.0.1:1")


@pytest.mark.parametrize(
    "address",
    [
        f"s3://AKIA:{SECRET}@bucket/prefix",
        f"s3://{SECRET.partition('/')[0]}@bucket",
        f"gs://user:{SECRET}@bucket",
        f"s4://AKIA:{SECRET.replace('/', '')}@bucket",
        f"https://account.blob.core.windows.net/c?sv=1&sig={SECRET}",
        f"s3://bucket/a?X-Amz-Signature={SECRET}",
    ],
)
def test_credentials_in_an_address_are_refused_and_not_repeated(address: str) -> None:
    with pytest.raises(InvalidInput, match=r"the address \w+://… holds credentials; leave them out and set") as failed:
        open_store(address)
    assert not any(part in str(failed.value) for part in SECRET.split("/"))


@pytest.mark.parametrize("endpoint", ["http://u:p4ssword@host", "localhost:9000", "ftp://h", "http://", "http://a b"])
def test_an_address_of_no_server_is_refused(endpoint: str) -> None:
    with pytest.raises(InvalidInput) as failed:
        S3("yard", endpoint_url=endpoint)
    assert "p4ssword" not in str(failed.value)


@pytest.mark.parametrize("bucket", ["a b", "a/b", "key:secret@bucket", "-", ""])
def test_a_name_of_no_bucket_is_refused(bucket: str) -> None:
    with pytest.raises(InvalidInput):
        S3(bucket, endpoint_url="http://127.0.0.1:1")


@pytest.mark.parametrize("url", ["s3://[bucket", "s3://bucket/a#b", "s3://bucket?versions"])
def test_an_address_that_cannot_be_read_is_one_line(url: str) -> None:
    with pytest.raises(InvalidInput, match="use s3://bucket/prefix"):
        open_store(url)


def test_ordinary_addresses_pass() -> None:
    for url in ("s3://bucket/a@b:c", "/home/me@work/models", "memory://", "az://container/x"):
        check_address(url)


def test_what_is_said_holds_nothing_that_opens_a_store() -> None:
    said = redact(
        f"GET https://me:{SECRET.replace('/', '')}@host/b?X-Amz-Credential={SECRET}&X-Amz-Signature={SECRET}&a=1; "
        f"https://host/c?sv=2020&sig={SECRET}&se=2"
    )
    assert not any(part in said for part in SECRET.split("/"))
    assert said == "GET https://…@host/b?X-Amz-Credential=…&X-Amz-Signature=…&a=1; https://host/c?sv=2020&sig=…&se=2"


CALLS: dict[str, Callable[[Store], object]] = {
    "get": lambda store: store.get("a"),
    "put": lambda store: store.put("a", b""),
    "create": lambda store: store.create("a", b""),
    "list": lambda store: list(store.objects("a")),
    "delete": lambda store: store.delete(["a"]),
    "copy": lambda store: store.copy("a", "b"),
    "stream": lambda store: list(store.stream("a")),
    "range": lambda store: store.get_range("a", 0, 1),
    "folders": lambda store: store.list_directories("a"),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_wrong_keys_are_not_repeated(
    call: Callable[[Store], object], s3_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "tester")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_SESSION_TOKEN", SECRET[::-1])
    store = S3("yard", "wrong", endpoint_url=s3_server)
    with pytest.raises(ModelyardError) as failed:
        call(store)
    shown = f"{failed.value} {failed.value!r} {failed.value.__cause__} {store!r} {vars(store)}"
    assert SECRET not in shown and SECRET[::-1] not in shown
    assert "\n" not in str(failed.value)


def test_a_key_of_azure_that_is_none_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "no base64 at all!")
    with pytest.raises(SettingsError, match=r"az://container can't be opened: .*Invalid Access Key") as failed:
        Azure("container")
    assert "no base64" not in str(failed.value)


def test_an_account_that_is_not_set_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(SettingsError, match="Account must be specified; check the provider's usual variables"):
        open_store("az://container/prefix")
