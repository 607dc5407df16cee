"""The policies of docs/access, given to users of a real S3 server that evaluates them: who may do what."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest

from modelyard.errors import StoreError
from modelyard.refs import ModelRef
from modelyard.repository import ModelRepository
from modelyard.repository.evidence import Evidence, EvidenceJournal
from modelyard.store import S3, Journal, Store
from modelyard.store.probe import probe

POLICIES = Path(__file__).parents[2] / "docs" / "access"
ROLES = ("reader", "registrar", "validator", "deployer", "administrator")
PREFIX = "team/models"

Act = Callable[["Role"], object]


class Role:
    """A user with one of the policies, and a repository in that user's name."""

    def __init__(self, store: Store, repository: ModelRepository, model: Path) -> None:
        self.store = store
        self.repository = repository
        self._model = model

    @property
    def ref(self) -> ModelRef:
        return self.repository.resolve("good").ref

    def register(self) -> object:
        return self.repository.register_model(f"new-{uuid.uuid4().hex}", "v1.0.0", self._model, {})

    def evidence(self, kind: str, key: str = "key") -> None:
        found = Evidence(passed=True, digest=str(self.ref.digest), suite="s", engine={})
        EvidenceJournal(self.store, kind).add(self.ref, key, found, by="somebody")

    def journal(self, prefix: str) -> None:
        Journal(self.store, prefix).update(lambda old: {"n": old.get("n", 0) + 1}, by="somebody", why="a change")

    def artifact(self) -> str:
        return self.repository.resolve("good").files[0].key


ACTS: dict[str, tuple[Act, tuple[str, ...]]] = {
    "pull": (lambda role: role.repository.get_model("good", "v1.0.0"), ROLES),
    "list": (lambda role: (role.repository.list_models(), role.repository.tags("good")), ROLES),
    "verify": (lambda role: role.repository.verify(role.repository.resolve("good")), ROLES),
    "register": (Role.register, ("registrar", "administrator")),
    "tag": (
        lambda role: role.repository.tag("good", f"t-{uuid.uuid4().hex}", "v1.0.0", reason="a try"),
        ("registrar", "administrator"),
    ),
    "scan": (lambda role: role.evidence("scan"), ("registrar", "administrator")),
    "sign": (lambda role: role.evidence("signature"), ("registrar", "administrator")),
    "validate": (lambda role: role.evidence("validation"), ("validator", "administrator")),
    "profile": (lambda role: role.evidence("profile"), ("validator", "administrator")),
    # keys that look like another kind's
    "pass a validation off as a scan": (lambda role: role.evidence("validation", "scan"), ("administrator",)),
    "pass a scan off as a validation": (lambda role: role.evidence("scan", "validation"), ("administrator",)),
    "deploy to staging": (lambda role: deploy(role, "staging"), ("deployer", "administrator")),
    "deploy to production": (lambda role: deploy(role, "production"), ("deployer", "administrator")),
    "configure": (lambda role: role.journal("config/embeddings"), ("administrator",)),
    "give access": (lambda role: role.journal("access"), ("administrator",)),
    "init": (lambda role: probe(role.store), ("administrator",)),
    "remove a file": (lambda role: removed(role, role.artifact), ("administrator",)),
    "remove a manifest": (lambda role: removed(role, lambda: "versions/spare/v1.0.0.json"), ("administrator",)),
}


def deploy(role: Role, environment: str) -> object:
    version = role.repository.resolve("good")
    return role.repository.request(version, environment, why="a try")


def removed(role: Role, key: Callable[[], str]) -> None:
    """With the bytes put back by who may: an administrator's act must not spoil the others'."""
    name = key()
    data = role.store.get(name)
    role.store.delete([name])
    role.store.put(name, data)


@pytest.fixture(scope="module")
def bucket(s3_server: str) -> str:
    name = uuid.uuid4().hex
    _client("s3", s3_server).create_bucket(Bucket=name)
    return name


def _client(service: str, url: str) -> Any:
    return boto3.Session(
        aws_access_key_id="tester", aws_secret_access_key="secret-of-the-tester", region_name="us-east-1"
    ).client(service, endpoint_url=url)


@pytest.fixture(scope="module")
def keys(s3_server: str, bucket: str) -> dict[str, tuple[str, str]]:
    """Role → access key and secret of a user who has that role's policy alone."""
    iam, made = _client("iam", s3_server), {}
    for role in ROLES:
        name = f"{role}-{uuid.uuid4().hex[:8]}"
        text = (POLICIES / f"{role}.json").read_text().replace("BUCKET", bucket).replace("PREFIX", PREFIX)
        policy = iam.create_policy(PolicyName=name, PolicyDocument=text)["Policy"]
        iam.create_user(UserName=name)
        iam.attach_user_policy(UserName=name, PolicyArn=policy["Arn"])
        key = iam.create_access_key(UserName=name)["AccessKey"]
        made[role] = (key["AccessKeyId"], key["SecretAccessKey"])
    return made


@pytest.fixture
def open_as(
    s3_server: str,
    bucket: str,
    keys: dict[str, tuple[str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    open_repository: Callable[..., ModelRepository],
) -> Callable[[str], Role]:
    model = tmp_path / "model"
    model.mkdir()
    (model / "weights.bin").write_bytes(b"weights")
    monkeypatch.setenv("AWS_REGION", "us-east-1")

    def build(role: str) -> Role:
        key, secret = keys[role]
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
        store = S3(bucket, PREFIX, endpoint_url=s3_server)
        return Role(store, open_repository(store, user=role), model)

    administrator = build("administrator")
    _until_known(administrator)
    for name in ("good", "spare"):
        administrator.repository.register_model(name, "v1.0.0", model, {})
    return build


def _until_known(role: Role) -> None:
    """A new key is known to the server a moment after it was made."""
    deadline = time.monotonic() + 30
    while True:
        try:
            list(role.store.objects("versions"))
            return
        except StoreError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


@pytest.mark.parametrize("role", ROLES)
def test_a_role_may_do_its_own_work_and_nothing_else(open_as: Callable[[str], Role], role: str) -> None:
    user = open_as(role)
    _until_known(user)
    for act, (call, allowed) in ACTS.items():
        if role in allowed:
            call(user)
            continue
        with pytest.raises(StoreError, match="AccessDenied") as refused:
            call(user)
            pytest.fail(f"a {role} may {act}")
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("role", ROLES)
def test_what_else_is_in_the_bucket_is_out_of_reach(
    open_as: Callable[[str], Role], s3_server: str, bucket: str, role: str
) -> None:
    _client("s3", s3_server).put_object(Bucket=bucket, Key="other/secret", Body=b"1")
    _until_known(open_as(role))
    elsewhere = S3(bucket, "other", endpoint_url=s3_server)
    for call in (lambda: elsewhere.get("secret"), lambda: elsewhere.put("mine", b""), lambda: elsewhere.delete(["a"])):
        with pytest.raises(StoreError, match="AccessDenied"):
            call()


@pytest.mark.parametrize("role", ROLES)
def test_what_is_not_there_is_said_to_be_missing(open_as: Callable[[str], Role], role: str) -> None:
    user = open_as(role)
    _until_known(user)
    assert user.repository.list_models() != []
    assert Journal(user.store, "catalog/unknown").read() is None


@pytest.mark.parametrize("role", ROLES)
def test_the_policies_name_only_the_store(role: str) -> None:
    policy = json.loads((POLICIES / f"{role}.json").read_text())
    assert policy["Version"] == "2012-10-17"
    for statement in policy["Statement"]:
        resources = statement["Resource"]
        for resource in [resources] if isinstance(resources, str) else resources:
            assert resource == "arn:aws:s3:::BUCKET" or resource.startswith("arn:aws:s3:::BUCKET/PREFIX/")
        assert "*" not in json.dumps(statement["Action"])
