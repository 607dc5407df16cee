"""How a bucket keeps what is overwritten or deleted: versioning, and the lifecycle rules that end it again.

Object stores have no common interface for that. For S3 boto3 asks and changes; for others the command to run is said.
"""

from __future__ import annotations

import json
import shlex
from typing import Any
from urllib.parse import urlsplit

from modelyard.settings import StorageSettings
from modelyard.store.credentials import redact
from modelyard.store.probe import Finding, State

NONCURRENT_DAYS = 30
UPLOAD_DAYS = 2  # an attempt to register gives up by itself within half a day
_DENIED = {"AccessDenied", "AllAccessDisabled", "Forbidden", "UnauthorizedAccess", "403"}
_LACKING = {"MethodNotAllowed", "NotImplemented", "405", "501"}
_WHAT = f"expire noncurrent objects after {NONCURRENT_DAYS} days, abort incomplete uploads after {UPLOAD_DAYS}"


def look_after(
    url: str, endpoint: str | None, settings: StorageSettings, *, change: bool = True, lifecycle: bool = False
) -> list[Finding]:
    """Versioning and lifecycle of the bucket a store is in.

    With `change`, versioning is turned on where that is permitted; with `lifecycle` too, the rules are applied.
    """
    parts = urlsplit(url)
    prefix = parts.path.strip("/")
    match parts.scheme:
        case "s3":
            bucket = _S3Bucket(parts.netloc, prefix, endpoint, settings)
            return [bucket.versioning(change=change), bucket.lifecycle(apply=change and lifecycle)]
        case "gs":
            return _google(parts.netloc, prefix)
        case "az":
            return _azure()
    nothing = "what is overwritten or deleted is gone at once"
    return [Finding("versioning", "not applicable", nothing), Finding("lifecycle", "not applicable", nothing)]


class _S3Bucket:
    """One bucket, asked through boto3; without boto3 every answer is the command to run by hand."""

    def __init__(self, bucket: str, prefix: str, endpoint: str | None, settings: StorageSettings) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._endpoint = endpoint
        self._settings = settings

    def versioning(self, *, change: bool) -> Finding:
        """Whether old objects are kept; turned on with `change`."""
        command = self._aws("put-bucket-versioning", "--versioning-configuration Status=Enabled")

        def ask(client: Any) -> Finding:
            if client.get_bucket_versioning(Bucket=self._bucket).get("Status") == "Enabled":
                return Finding("versioning", "ok", "on: what is overwritten or deleted can be brought back")
            if not change:
                return Finding("versioning", "proposed", "off; `modelyard init` turns it on, as does", command)
            client.put_bucket_versioning(Bucket=self._bucket, VersioningConfiguration={"Status": "Enabled"})
            return Finding("versioning", "changed", "turned on: what is overwritten or deleted can be brought back")

        return self._try("versioning", ask, command)

    def lifecycle(self, *, apply: bool) -> Finding:
        """The rules that keep versioning and broken uploads from filling the bucket; other rules in it stay."""

        def ask(client: Any) -> Finding:
            there = self._rules(client)
            wanted = self._with_ours(there)
            if wanted == there:
                return Finding("lifecycle", "ok", f"set: {_WHAT}")
            if not apply:
                return Finding("lifecycle", "proposed", f"{_WHAT}; with --lifecycle, or", self._put_rules(wanted))
            client.put_bucket_lifecycle_configuration(Bucket=self._bucket, LifecycleConfiguration={"Rules": wanted})
            return Finding("lifecycle", "changed", f"set: {_WHAT}")

        return self._try("lifecycle", ask, self._put_rules(self._with_ours([])))

    def _try(self, check: str, ask: Any, command: str) -> Finding:
        try:
            import boto3
            from botocore.config import Config
            from botocore.exceptions import BotoCoreError, ClientError
        except ImportError:
            return Finding(check, "unknown", "to look, pip install 'modelyard[s3]'; to set it by hand", command)
        own = self._settings
        config = Config(
            connect_timeout=own.connect_timeout_s,
            read_timeout=own.read_timeout_s,
            retries={"mode": "standard", "total_max_attempts": min(own.retries, 3) + 1},
        )
        try:
            return ask(boto3.Session().client("s3", endpoint_url=self._endpoint, config=config))  # type: ignore[no-any-return]
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code"))
            state, said = _refusal(code)
            return Finding(check, state, said, command)
        except BotoCoreError as error:
            return Finding(check, "unknown", f"can't be asked ({redact(str(error)).splitlines()[0]})", command)

    def _rules(self, client: Any) -> list[dict[str, Any]]:
        from botocore.exceptions import ClientError

        try:
            found: list[dict[str, Any]] = client.get_bucket_lifecycle_configuration(Bucket=self._bucket)["Rules"]
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") == "NoSuchLifecycleConfiguration":
                return []
            raise
        return found

    def _with_ours(self, there: list[dict[str, Any]]) -> list[dict[str, Any]]:
        scope = self._prefix.strip("/").replace("/", "-") or "all"
        common = {"Status": "Enabled", "Filter": {"Prefix": self._prefix}}
        ours: list[dict[str, Any]] = [
            {
                "ID": f"modelyard-noncurrent-{scope}"[:255],
                **common,
                "Expiration": {"ExpiredObjectDeleteMarker": True},
                "NoncurrentVersionExpiration": {"NoncurrentDays": NONCURRENT_DAYS},
            },
            {
                "ID": f"modelyard-uploads-{scope}"[:255],
                **common,
                "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": UPLOAD_DAYS},
            },
        ]
        known: dict[str, dict[str, Any]] = {rule.get("ID", ""): rule for rule in there}
        if all(known.get(rule["ID"], {}) | rule == known.get(rule["ID"]) for rule in ours):
            return there
        return [rule for rule in there if rule.get("ID") not in {own["ID"] for own in ours}] + ours

    def _put_rules(self, rules: list[dict[str, Any]]) -> str:
        text = json.dumps({"Rules": rules}, separators=(",", ":"), default=str)
        return self._aws("put-bucket-lifecycle-configuration", f"--lifecycle-configuration {shlex.quote(text)}")

    def _aws(self, verb: str, rest: str) -> str:
        server = f" --endpoint-url {self._endpoint}" if self._endpoint else ""
        return f"aws{server} s3api {verb} --bucket {self._bucket} {rest}"


def _refusal(code: str) -> tuple[State, str]:
    if code in _DENIED:
        return "not permitted", "these credentials may not; somebody who may can run"
    if code in _LACKING:
        return "lacking", f"the server has none ({code})"
    return "unknown", f"can't be asked ({code}); by hand"


def _google(bucket: str, prefix: str) -> list[Finding]:
    scope = {"matchesPrefix": [f"{prefix}/"]} if prefix else {}
    ends = {"isLive": False, "daysSinceNoncurrentTime": NONCURRENT_DAYS}
    rules = [
        {"action": {"type": "Delete"}, "condition": ends | scope},
        {"action": {"type": "AbortIncompleteMultipartUpload"}, "condition": {"age": UPLOAD_DAYS} | scope},
    ]
    write = f"echo {shlex.quote(json.dumps({'rule': rules}))} > lifecycle.json"
    update = f"gcloud storage buckets update gs://{bucket}"
    return [
        Finding("versioning", "unknown", "not looked at here; to turn it on", f"{update} --versioning"),
        Finding("lifecycle", "proposed", _WHAT, f"{write}; {update} --lifecycle-file=lifecycle.json"),
    ]


def _azure() -> list[Finding]:
    """Azure counts a version's days from its writing, not from its replacement, so soft delete fits better."""
    keep = f"--enable-delete-retention true --delete-retention-days {NONCURRENT_DAYS}"
    command = f"az storage account blob-service-properties update --account-name ACCOUNT {keep}"
    return [
        Finding("versioning", "unknown", "not looked at here; to keep what is overwritten or deleted", command),
        Finding("lifecycle", "not applicable", "soft delete ends by itself, and broken uploads after a week"),
    ]
