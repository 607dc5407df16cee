"""The command line on a real S3 server instead of a folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modelyard.errors import StoreError

from .conftest import Cli, refused


@pytest.fixture
def bucket(folder: Path, s3_server: str, own_bucket: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MODELYARD_S3_ENDPOINT_URL", s3_server)
    return f"s3://{own_bucket}/models"


def test_a_model_goes_into_a_bucket_and_comes_back(
    cli: Cli, folder: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "weights.bin").write_bytes(b"weights")

    assert cli("init", bucket).out.startswith(f"the store is {bucket}\n")
    assert cli("register", "weights.bin", "good:v1.0.0", "--store", bucket).code == 0
    monkeypatch.setenv("MODELYARD_STORE", bucket)
    assert cli("init").out.startswith(f"the store is {bucket}\n")
    assert cli("ls", "good").out == "v1.0.0  latest\n"
    assert cli("pull", "good", "out").code == 0
    assert (folder / "out" / "weights.bin").read_bytes() == b"weights"
    assert cli("verify").code == 0
    assert not (folder / ".modelyard").exists()


def states(cli: Cli, *arguments: str) -> dict[str, str]:
    return {found["check"]: found["state"] for found in cli("init", *arguments, "--json").json["checks"]}


def test_init_says_what_a_bucket_can_do_and_changes_what_it_may(cli: Cli, bucket: str) -> None:
    able = dict.fromkeys(("create-if-absent", "listing", "server-side copy", "range reads", "presigned URLs"), "ok")
    assert states(cli, bucket, "--dry-run", "--lifecycle") == able | {"versioning": "proposed", "lifecycle": "proposed"}
    assert states(cli, bucket) == able | {"versioning": "changed", "lifecycle": "proposed"}
    assert states(cli, bucket, "--lifecycle") == able | {"versioning": "ok", "lifecycle": "changed"}
    assert states(cli, bucket) == able | {"versioning": "ok", "lifecycle": "ok"}

    lines = cli("init", bucket).out.splitlines()
    assert lines[0] == f"the store is {bucket}"
    assert [line.split("  ")[0] for line in lines[2:]] == [*able, "versioning", "lifecycle"]


def test_init_prints_the_very_rule_to_apply(cli: Cli, bucket: str) -> None:
    found = {each["check"]: each for each in cli("init", bucket, "--json").json["checks"]}
    command = found["lifecycle"]["command"]
    rules = json.loads(command[command.index("{") : command.rindex("}") + 1])
    assert [rule["Filter"]["Prefix"] for rule in rules["Rules"]] == ["models/", "models/"]
    assert command in cli("init", bucket).out


def test_nothing_secret_is_printed(cli: Cli, bucket: str) -> None:
    for arguments in (["init", bucket], ["init", bucket, "--json"], ["ls", "--store", bucket]):
        result = cli(*arguments)
        assert "secret-of-the-tester" not in result.out + result.err
        assert "Signature" not in result.out + result.err
    result = cli("init", bucket.replace("s3://", "s3://tester:secret-of-the-tester@"))
    refused(result, "the address s3://… holds credentials")
    assert "secret" not in result.err


def test_a_bucket_that_is_not_there(cli: Cli, bucket: str) -> None:
    refused(
        cli("ls", "--store", "s3://no-such-bucket-here"),
        "s3://no-such-bucket-here",
        "check its address",
        code=StoreError.exit_code,
    )


def test_a_secret_that_is_wrong(cli: Cli, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")

    refused(cli("init", bucket), bucket, "permissions", code=StoreError.exit_code)
    refused(cli("ls", "--store", bucket), bucket, "permissions", code=StoreError.exit_code)
