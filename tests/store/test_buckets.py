"""Versioning and lifecycle of buckets, on a real S3 server where it has them."""

from __future__ import annotations

import builtins
import json
import shlex
from typing import Any

import pytest

from modelyard.settings import StorageSettings
from modelyard.store.buckets import look_after
from modelyard.store.probe import Finding

PATIENCE = StorageSettings(retries=0)


def looked(url: str, endpoint: str | None, **options: Any) -> tuple[Finding, Finding]:
    versioning, lifecycle = look_after(url, endpoint, PATIENCE, **options)
    assert (versioning.check, lifecycle.check) == ("versioning", "lifecycle")
    return versioning, lifecycle


def test_versioning_is_turned_on_once(s3_server: str, s3: Any, own_bucket: str) -> None:
    def state(**options: Any) -> str:
        return looked(f"s3://{own_bucket}", s3_server, **options)[0].state

    assert state(change=False) == "proposed"
    assert "Status" not in s3.get_bucket_versioning(Bucket=own_bucket)
    assert [state(), state(), state(change=False)] == ["changed", "ok", "ok"]
    assert s3.get_bucket_versioning(Bucket=own_bucket)["Status"] == "Enabled"


def test_rules_are_proposed_and_set_when_asked_for(s3_server: str, s3: Any, own_bucket: str) -> None:
    url = f"s3://{own_bucket}/team/a"
    proposed = looked(url, s3_server)[1]
    assert proposed.state == "proposed"
    assert looked(url, s3_server, change=False, lifecycle=True)[1] == proposed

    words = shlex.split(proposed.command)
    assert words[:5] == ["aws", "--endpoint-url", s3_server, "s3api", "put-bucket-lifecycle-configuration"]
    s3.put_bucket_lifecycle_configuration(Bucket=own_bucket, LifecycleConfiguration=json.loads(words[-1]))
    assert looked(url, s3_server)[1].state == "ok"


def test_rules_of_others_stay(s3_server: str, s3: Any, own_bucket: str) -> None:
    theirs = {"ID": "logs", "Status": "Enabled", "Filter": {"Prefix": "logs/"}, "Expiration": {"Days": 7}}
    s3.put_bucket_lifecycle_configuration(Bucket=own_bucket, LifecycleConfiguration={"Rules": [theirs]})
    for url in (f"s3://{own_bucket}/a", f"s3://{own_bucket}/b", f"s3://{own_bucket}/a"):
        assert looked(url, s3_server, lifecycle=True)[1].state in ("changed", "ok")
    rules = {rule["ID"]: rule for rule in s3.get_bucket_lifecycle_configuration(Bucket=own_bucket)["Rules"]}
    assert sorted(rules) == [
        "logs",
        *("modelyard-noncurrent-a", "modelyard-noncurrent-b", "modelyard-uploads-a", "modelyard-uploads-b"),
    ]
    assert rules["logs"]["Expiration"] == {"Days": 7}
    assert rules["modelyard-noncurrent-a"]["NoncurrentVersionExpiration"] == {"NoncurrentDays": 30}
    assert rules["modelyard-uploads-b"]["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 2}
    assert rules["modelyard-uploads-b"]["Filter"] == {"Prefix": "b/"}


def test_who_may_not_is_told_what_to_run(s3_server: str, own_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "reader")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-the-reader")
    versioning, lifecycle = looked(f"s3://{own_bucket}", s3_server, lifecycle=True)
    assert versioning.state == lifecycle.state == "not permitted"
    assert str(versioning) == (
        f"these credentials may not; somebody who may can run: aws --endpoint-url {s3_server} s3api "
        f"put-bucket-versioning --bucket {own_bucket} --versioning-configuration Status=Enabled"
    )
    assert "secret-of-the-reader" not in str(versioning) + str(lifecycle)


def test_a_server_that_is_not_there_is_one_line(s3: Any) -> None:
    versioning, _ = looked("s3://bucket", "http://127.0.0.1:1")
    assert versioning.state == "unknown"
    assert versioning.detail.startswith("can't be asked (Could not connect")
    assert "\n" not in versioning.detail


def test_without_boto3_it_is_done_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] in ("boto3", "botocore"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    versioning, lifecycle = looked("s3://bucket/a", None)
    assert versioning.state == lifecycle.state == "unknown"
    assert str(versioning).startswith("to look, pip install 'modelyard[s3]'; to set it by hand: aws s3api put-bucket-v")
    assert json.loads(shlex.split(lifecycle.command)[-1])["Rules"][0]["Filter"] == {"Prefix": "a/"}


def test_other_providers_have_commands_of_their_own() -> None:
    versioning, lifecycle = looked("gs://bucket/team", None)
    assert versioning.command == "gcloud storage buckets update gs://bucket --versioning"
    rules = json.loads(shlex.split(lifecycle.command.partition(";")[0])[1])["rule"]
    assert [rule["action"]["type"] for rule in rules] == ["Delete", "AbortIncompleteMultipartUpload"]
    assert {tuple(rule["condition"]["matchesPrefix"]) for rule in rules} == {("team/",)}
    versioning, lifecycle = looked("az://container/team", None)
    assert "--delete-retention-days 30" in versioning.command
    assert lifecycle.state == "not applicable"


@pytest.mark.parametrize("url", ["file:///somewhere", "memory://"])
def test_folders_and_memory_keep_nothing(url: str) -> None:
    assert {finding.state for finding in looked(url, None)} == {"not applicable"}
