"""Addresses of MLflow, what becomes metadata, and servers that refuse, fail, lie or bear ill will."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from modelyard.errors import InvalidInput, ModelyardError, NotFound, Refused, Unavailable
from modelyard.importer.mlflow import metadata
from modelyard.importer.mlflow.address import Address, parse
from modelyard.importer.mlflow.documents import Metric
from modelyard.importer.remote import Patience
from modelyard.importer.sources.mlflow import MLflowSource

API = "/api/2.0/"
MODEL = {"name": "m", "latest_versions": [{"name": "m", "version": "3"}, {"name": "m", "version": "12"}]}
LOGGED = "m-" + "0" * 32


@dataclass
class Fake:
    """Answers by path: JSON, bytes, or (status, headers). Unknown paths are 404."""

    url: str = ""
    answers: dict[str, Any] = field(default_factory=dict)
    asked: list[tuple[str, str | None]] = field(default_factory=list)

    @property
    def address(self) -> str:
        return self.url.replace("http://", "mlflow://")

    def model(self, uri: str, **version: Any) -> None:
        """One registered version with its artifacts at `uri`."""
        self.answers |= {
            "mlflow/registered-models/get": {"registered_model": MODEL},
            "mlflow/model-versions/get": {"model_version": {"name": "m", "version": "12", **version}},
            "mlflow/model-versions/get-download-uri": {"artifact_uri": uri},
        }


@pytest.fixture
def fake() -> Iterator[Fake]:
    server = Fake()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path).partition(API)[2]
            server.asked.append((path, self.headers.get("authorization")))
            answer = server.answers.get(path, (404, {}))
            status, headers = answer if isinstance(answer, tuple) else (200, {})
            body = (
                answer
                if isinstance(answer, bytes)
                else b""
                if headers or status != 200
                else json.dumps(answer).encode()
            )
            self.send_response(status)
            for key, value in ({"content-length": str(len(body))} | headers).items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        server.url = f"http://127.0.0.1:{http.server_port}"
        yield server
        http.shutdown()
        thread.join()


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> MLflowSource:
    for name in ("USERNAME", "PASSWORD", "TOKEN", "URI"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)
    return MLflowSource(Patience(retries=1, sleep=lambda _: None))


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("mlflow://host:5000/models/a%20b/3", Address("http://host:5000", model="a b", version="3")),
        ("mlflow+https://host/models/m@best", Address("https://host", model="m", alias="best")),
        ("mlflow://host/below/it/models/m", Address("http://host/below/it", model="m")),
        (f"mlflow://host/models/{LOGGED}", Address("http://host", logged=LOGGED)),
        ("mlflow://host/runs/abc/some/model", Address("http://host", run="abc", path="some/model")),
        ("mlflow://models/m/1", Address(model="m", version="1")),
        ("mlflow://runs/abc", Address(run="abc")),
        ("mlflow://models", Address()),
        ("mlflow://", Address()),
        ("mlflow://host:1", Address("http://host:1")),
        ("mlflow://models:80/models/m", Address("http://models:80", model="m")),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    assert parse(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "mlflow://ada:secret@host/models/m",
        "mlflow://host/models/m/1/2",
        "mlflow://host/models/m@",
        "mlflow://host/models/m@a/1",
        "mlflow://host/runs/a%20b",
        "mlflow://host/runs/abc/../x",
        "mlflow://host/models/m?version=1",
        "mlflow:///somewhere/models/m",
    ],
)
def test_no_addresses(text: str) -> None:
    with pytest.raises(InvalidInput) as error:
        parse(text)
    assert "secret" not in str(error.value)


def test_an_address_is_written_as_it_is_read() -> None:
    for base in ("mlflow://host:5000/below", "mlflow+https://host", "mlflow://models"):
        assert parse(parse(base).of("a b/c", "3")) == Address(parse(base).server, model="a b/c", version="3")


@pytest.mark.parametrize(
    ("alias", "tag"),
    [("champion", "champion"), ("Best_One", "best-one"), ("production", None), ("v2", None), ("1st", None)],
)
def test_aliases(alias: str, tag: str | None) -> None:
    assert metadata.tag_of(alias) == tag


def test_signatures() -> None:
    tensor = {"type": "tensor", "name": "x", "tensor-spec": {"dtype": "float32", "shape": [-1, 4]}}
    columns = {"type": "double", "name": "width"}
    ours = metadata.signature({"inputs": json.dumps([tensor]), "outputs": None})
    assert ours == {"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}], "outputs": []}
    for found in (None, "text", {"inputs": "{"}, {"inputs": json.dumps([columns])}, {"inputs": json.dumps({"a": 1})}):
        assert metadata.signature(found) is None


def test_numbers_that_json_does_not_have() -> None:
    assert [Metric(key="m", value=value).value for value in (1, 0.5, float("inf"), "NaN")] == [1, 0.5, "inf", "NaN"]


def test_an_mlmodel_that_unfolds_without_end_stays_small() -> None:
    lines = [
        "a0: &a0 [x, x]",
        *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 60)),
        "flavors: {f: {v: *a59, w: 1}}",
    ]
    known = metadata.metadata(metadata.Known(), metadata.read_mlmodel("\n".join(lines).encode()))
    assert known == {"mlflow": {"flavors": {"f": {"w": 1}}}}


@pytest.mark.parametrize("data", [b"[1]", b"a: [", b"\xff\xfe\x00"])
def test_a_broken_mlmodel(data: bytes) -> None:
    with pytest.raises(InvalidInput, match="MLmodel can't be read"):
        metadata.read_mlmodel(data)


def test_a_server_that_knows_no_ranges(fake: Fake, source: MLflowSource) -> None:
    fake.model("mlflow-artifacts:/1/a")
    data = bytes(range(256)) * 4096
    fake.answers["mlflow-artifacts/artifacts"] = {"files": [{"path": "w.bin", "file_size": len(data)}]}
    fake.answers["mlflow-artifacts/artifacts/1/a/w.bin"] = data
    with source.open(f"{fake.address}/models/m") as fetched:
        (file,) = fetched.files
        assert (fetched.version, b"".join(file.chunks())) == ("12.0.0", data)
        with file.open() as stream:
            stream.seek(300_000)
            assert stream.read(1000) == data[300_000:301_000]


def test_credentials(fake: Fake, source: MLflowSource, monkeypatch: pytest.MonkeyPatch) -> None:
    def shown() -> str | None:
        fake.asked.clear()
        with pytest.raises(NotFound), source.open(f"{fake.address}/models/m"):
            pass
        return fake.asked[0][1]

    assert shown() is None
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "a-token")
    assert shown() == "Bearer a-token"
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ada")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
    assert shown() == "Basic YWRhOnNlY3JldA=="
    fake.answers["mlflow/registered-models/get"] = (401, {})
    with pytest.raises(Refused) as error, source.open(f"{fake.address}/models/m"):
        pass
    assert "secret" not in str(error.value) and "ada" not in str(error.value)


def test_another_server_is_not_shown_the_credentials(
    fake: Fake, source: MLflowSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "a-token")
    elsewhere = fake.url.replace("http://127.0.0.1", "mlflow-artifacts://localhost")
    fake.model(f"{elsewhere}/1/a")
    fake.answers["mlflow-artifacts/artifacts"] = {"files": [{"path": "w.bin", "file_size": 1}]}
    with source.open(f"{fake.address}/models/m") as fetched:
        assert [file.path for file in fetched.files] == ["w.bin"]
    assert {(path.startswith("mlflow-artifacts"), token) for path, token in fake.asked} == {
        (False, "Bearer a-token"),
        (True, None),
    }


def hostile_list(fake: Fake) -> None:
    fake.model("mlflow-artifacts:/1/a")
    fake.answers["mlflow-artifacts/artifacts"] = {"files": [{"path": "..", "is_dir": True}]}


def endless_folders(fake: Fake) -> None:
    fake.model("mlflow-artifacts:/1/a")
    fake.answers["mlflow-artifacts/artifacts"] = {"files": [{"path": "a", "is_dir": True}]}


@pytest.mark.parametrize(
    ("prepare", "error", "why"),
    [
        (hostile_list, InvalidInput, "are no model"),
        (endless_folders, InvalidInput, "are no model"),
        (lambda fake: fake.model("dbfs:/models/1"), InvalidInput, "lie at dbfs://, which can't be read"),
        (lambda fake: fake.model("file:///etc"), InvalidInput, "/etc holds no MLmodel"),
        (lambda fake: fake.model("/no/such/folder"), NotFound, "are not at /no/such/folder"),
        (lambda fake: fake.model("relative/folder"), InvalidInput, "no folder of this machine"),
        (lambda fake: fake.model("x:/", status="FAILED_REGISTRATION"), InvalidInput, "is FAILED_REGISTRATION"),
        (lambda fake: fake.answers.update({"mlflow/registered-models/get": b"<html>"}), InvalidInput, "no JSON"),
        (lambda fake: fake.answers.update({"mlflow/registered-models/get": []}), InvalidInput, "not answer as MLflow"),
        (
            lambda fake: fake.answers.update({"mlflow/registered-models/get": (302, {"location": "http://x/"})}),
            InvalidInput,
            "sends us elsewhere",
        ),
        (
            lambda fake: fake.answers.update({"mlflow/registered-models/get": (503, {})}),
            Unavailable,
            "answered 503",
        ),
        (lambda fake: None, NotFound, "there is no model m at"),
    ],
)
def test_answers_that_can_not_be_used(
    fake: Fake, source: MLflowSource, prepare: Callable[[Fake], None], error: type[ModelyardError], why: str
) -> None:
    prepare(fake)
    with pytest.raises(error, match=why) as raised, source.open(f"{fake.address}/models/m"):
        pass
    assert "\n" not in str(raised.value)


def test_artifacts_in_a_folder_of_this_machine(fake: Fake, source: MLflowSource, tmp_path: Path) -> None:
    (tmp_path / "MLmodel").write_text("flavors: {onnx: {data: model.onnx}}\n")
    fake.model(tmp_path.as_uri())
    with source.open(f"{fake.address}/models/m") as fetched:
        assert [file.path for file in fetched.files] == ["MLmodel"]
        assert fetched.metadata["mlflow"]["flavors"] == {"onnx": {"data": "model.onnx"}}


def test_no_server(source: MLflowSource) -> None:
    with pytest.raises(InvalidInput, match="no MLflow server is named"), source.open("mlflow://models/m"):
        pass
    with pytest.raises(Unavailable, match="can't be reached"), source.open("mlflow://127.0.0.1:1/models/m"):
        pass
    with pytest.raises(InvalidInput, match="names one model"):
        next(source.list("mlflow://127.0.0.1:1/runs/abc"))
