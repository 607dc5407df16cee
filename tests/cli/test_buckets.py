"""The command line on a real S3 server instead of a folder."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from .conftest import Cli, refused


@pytest.fixture
def bucket(folder: Path, s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MODELYARD_S3_ENDPOINT_URL", s3_server)
    for name, value in {"ACCESS_KEY_ID": "tester", "SECRET_ACCESS_KEY": "secret-of-the-tester"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    return f"s3://yard/{uuid.uuid4().hex}"


def test_a_model_goes_into_a_bucket_and_comes_back(
    cli: Cli, folder: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "weights.bin").write_bytes(b"weights")

    assert cli("init", bucket).out == f"the store is {bucket}\n"
    assert cli("register", "weights.bin", "good:v1.0.0", "--store", bucket).code == 0
    monkeypatch.setenv("MODELYARD_STORE", bucket)
    assert cli("init").out == f"the store is {bucket}\n"
    assert cli("ls", "good").out == "v1.0.0  latest\n"
    assert cli("pull", "good", "out").code == 0
    assert (folder / "out" / "weights.bin").read_bytes() == b"weights"
    assert cli("verify").code == 0
    assert not (folder / ".modelyard").exists()


def test_a_bucket_that_is_not_there(cli: Cli, bucket: str) -> None:
    refused(cli("ls", "--store", "s3://no-such-bucket-here"), "s3://no-such-bucket-here", "check its address")


def test_a_secret_that_is_wrong(cli: Cli, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")

    refused(cli("init", bucket), bucket, "permissions")
    refused(cli("ls", "--store", bucket), bucket, "permissions")
