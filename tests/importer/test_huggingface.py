"""Importing from a model hub: what comes, what is asked for, and what a hub that fails or lies leads to."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.utils import close_session

from modelyard.errors import IntegrityError, InvalidInput, ModelyardError, NotFound, Refused, Unavailable
from modelyard.importer import ModelImporter
from modelyard.importer.importer import Filter
from modelyard.importer.inspect import inspect_files
from modelyard.importer.remote import Patience
from modelyard.importer.sources import huggingface
from modelyard.repository import ModelRepository
from modelyard.store import Cache, Memory

from . import builders
from .hub_server import COMMIT, TOKEN, Answer, HubServer, Repository, hub_server, of_files

NAME = "tiny-org/Tiny-Model"
WEIGHTS = builders.safetensors(
    {"a": {"dtype": "F32", "shape": [1 << 19], "data_offsets": [0, 2 << 20]}}, bytes(2 << 20)
)
FILES = {
    "README.md": b"---\nlicense: apache-2.0\nlanguage: en\n---\n# Tiny\n",
    "config.json": json.dumps({"model_type": "bert", "architectures": ["BertModel"]}).encode(),
    "model.safetensors": WEIGHTS,
    "quant/tiny-Q4_K_M.gguf": builders.gguf({"general.architecture": "llama", "general.file_type": 15}),
    "quant/tiny-Q8_0.gguf": builders.gguf({"general.architecture": "llama", "general.file_type": 7}),
}
LFS = frozenset(path for path in FILES if path.endswith((".safetensors", ".gguf")))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    with hub_server() as server:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.url)
        template = f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        server.repositories[NAME] = Repository(dict(FILES), LFS)
        yield server
        close_session()


@pytest.fixture
def rests(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that the importer would have waited."""
    waited: list[float] = []
    source = huggingface.HuggingFaceSource(Patience(sleep=waited.append))
    monkeypatch.setattr("modelyard.importer.sources.SOURCES", (source,))
    return waited


@pytest.fixture
def repository(tmp_path: Path) -> ModelRepository:
    return ModelRepository(Memory(), cache=Cache(tmp_path / "cache"), inspect=inspect_files, user="ada")


@pytest.fixture
def importer(repository: ModelRepository, rests: list[float]) -> ModelImporter:
    return ModelImporter(repository)


def nothing_left(repository: ModelRepository) -> bool:
    """Nothing but, at most, the name: catalog entries hold no bytes of a model."""
    return [o.key for o in repository.storage.objects("") if not o.key.startswith("catalog/")] == []


def test_the_test_server_is_a_hub_to_its_own_client(hub: HubServer, tmp_path: Path) -> None:
    hub.page = 2
    api = huggingface_hub.HfApi(endpoint=hub.url)
    listed = {
        f.path: f for f in api.list_repo_tree(NAME, recursive=True) if isinstance(f, huggingface_hub.hf_api.RepoFile)
    }
    assert listed.keys() == FILES.keys()
    assert listed["model.safetensors"].lfs is not None and listed["config.json"].lfs is None
    path = api.hf_hub_download(NAME, "config.json", cache_dir=tmp_path / "cache")
    assert Path(path).read_bytes() == FILES["config.json"] and COMMIT in path


def test_a_repository(importer: ModelImporter, repository: ModelRepository, hub: HubServer) -> None:
    hub.page = 2
    version = importer.import_model(f"hf://{NAME}", files=Filter(exclude=["quant/*"]))
    assert (version.name, str(version.version)) == ("Tiny-Model", "v1.0.0")
    assert (version.model.format, version.model.license) == ("transformers", "apache-2.0")
    assert {file.path: file.sha256 for file in version.files} == {
        path: hashlib.sha256(data).hexdigest() for path, data in FILES.items() if "/" not in path
    }
    source = {"kind": "huggingface", "endpoint": hub.url, "repository": NAME, "revision": "main", "commit": COMMIT}
    assert version.metadata == {"source": source}
    assert version.lineage == {"source": f"hf://{NAME}@{COMMIT}"}
    folder = repository.fetch(version)
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert all(COMMIT in request.path for request in hub.asked("/resolve/")), "everything is of one commit"


def test_one_quantization_of_a_revision(importer: ModelImporter, hub: HubServer) -> None:
    version = importer.import_model(f"hf://{NAME}@refs/pr/1", "tiny", files=Filter(include=["*Q4_K_M.gguf"]))
    assert [file.path for file in version.files] == ["quant/tiny-Q4_K_M.gguf"]
    assert (version.model.format, version.model.quantization) == ("gguf", "Q4_K_M")
    assert version.metadata["source"]["revision"] == "refs/pr/1"
    assert not [request for request in hub.asked("/resolve/") if "Q4_K_M" not in request.path]


def test_a_revision_that_is_called_as_a_version(importer: ModelImporter, hub: HubServer) -> None:
    hub.repositories[NAME].revisions += ("v2.1.0", "v2")
    chosen = Filter(["*.json"])
    versions = [str(importer.import_model(f"hf://{NAME}@{r}", files=chosen).version) for r in ("v2.1.0", "v2", COMMIT)]
    assert versions == ["v2.1.0", "v2.2.0", "v2.3.0"]


def test_a_model_without_organisation(importer: ModelImporter, hub: HubServer) -> None:
    hub.repositories["gpt2"] = Repository({"model.safetensors": WEIGHTS})
    assert importer.import_model("hf://gpt2").name == "gpt2"


def test_a_renamed_repository(importer: ModelImporter, hub: HubServer) -> None:
    hub.renamed["old/name"] = NAME
    version = importer.import_model("hf://old/name", files=Filter(["*.json"]))
    assert (version.name, version.metadata["source"]["repository"]) == ("Tiny-Model", NAME)


def test_inspection_before_anything_is_moved(
    importer: ModelImporter, repository: ModelRepository, hub: HubServer
) -> None:
    hub.repositories[NAME].files["model.bin"] = builders.hostile() + bytes(32 << 20)
    with pytest.raises(InvalidInput, match=r"model\.bin holds a pickle"):
        importer.import_model(f"hf://{NAME}")
    assert nothing_left(repository)
    assert all("Range" in request.headers for request in hub.asked("/resolve/"))


def test_memory_is_bounded(importer: ModelImporter, hub: HubServer) -> None:
    hub.repositories[NAME] = Repository({"big.dat": b"x" * (96 << 20)}, frozenset({"big.dat"}))
    with importer.open(f"hf://{NAME}") as candidate:
        tracemalloc.start()
        try:
            assert sum(len(chunk) for chunk in candidate.files[0].chunks()) == 96 << 20
            assert tracemalloc.get_traced_memory()[1] < 16 << 20
        finally:
            tracemalloc.stop()


# Tokens.


def test_a_private_repository(importer: ModelImporter, hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repositories[NAME].private = True
    with pytest.raises(NotFound, match=rf"no model {NAME} at .*; check the name; if it is private, set HF_TOKEN"):
        importer.import_model(f"hf://{NAME}")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert TOKEN not in importer.import_model(f"hf://{NAME}").to_json().decode()


def test_a_token_of_the_usual_file(importer: ModelImporter, hub: HubServer, tmp_path: Path) -> None:
    hub.repositories[NAME].private = True
    (tmp_path / "token").write_text(TOKEN + "\n")
    importer.import_model(f"hf://{NAME}", files=Filter(["*.json"]))


def test_a_token_goes_to_no_other_address(
    importer: ModelImporter, hub: HubServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with hub_server() as cdn:
        cdn.repositories, hub.cdn = hub.repositories, cdn.url
        importer.import_model(f"hf://{NAME}", files=Filter(["model.safetensors"]))
        assert cdn.requests and not any(request.headers.get("Authorization") for request in cdn.requests)
    assert all(request.headers.get("Authorization") for request in hub.requests)
    assert TOKEN not in caplog.text


def test_a_list_goes_on_at_no_other_address(
    importer: ModelImporter, hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with hub_server() as other:
        link = {"Link": f'<{other.url}/api>; rel="next"'}
        hub.faults.append(of_files(lambda answer: answer.json([], headers=link), path="/tree/"))
        with pytest.raises(InvalidInput, match="continues its list at another address"):
            importer.import_model(f"hf://{NAME}")
        assert other.requests == []


# A hub that refuses.


def refusing(status: int, code: str = "", **headers: str) -> Callable[[Answer], bool]:
    return lambda answer: answer.error(status, code, **headers)


@pytest.mark.parametrize(
    ("status", "code", "headers", "error", "why"),
    [
        (403, "GatedRepo", {}, Refused, r"tiny-org/Tiny-Model is gated; accept its conditions at http://127\.0\.0\.1"),
        (
            401,
            "",
            {"X-Error-Message": "Invalid credentials in Authorization header"},
            Refused,
            "does not take the token",
        ),
        (403, "", {"X-Error-Message": "Access to this resource is disabled."}, Refused, "is disabled"),
        (403, "", {}, Refused, "may not read"),
        (404, "RevisionNotFound", {}, NotFound, "has no revision 'main'; name a branch"),
        (404, "RepoNotFound", {}, NotFound, "there is no model tiny-org/Tiny-Model at"),
        (418, "", {}, Unavailable, "answered 418"),
    ],
)
def test_refusals(
    importer: ModelImporter,
    hub: HubServer,
    rests: list[float],
    status: int,
    code: str,
    headers: dict[str, str],
    error: type[Exception],
    why: str,
) -> None:
    hub.faults.append(refusing(status, code, **headers))
    with pytest.raises(error, match=why):
        importer.import_model(f"hf://{NAME}")
    assert len(hub.requests) == 1 and rests == []


def test_a_rate_limit_is_kept(importer: ModelImporter, hub: HubServer, rests: list[float]) -> None:
    hub.faults.append(of_files(refusing(429, **{"Retry-After": "7"}), times=2, path="/tree/"))
    hub.faults.append(of_files(refusing(429, RateLimit='"resolvers";r=0;t=55'), times=1))
    importer.import_model(f"hf://{NAME}")
    assert rests == [7, 7, 55]


def test_a_rate_limit_that_takes_too_long(importer: ModelImporter, hub: HubServer, rests: list[float]) -> None:
    hub.faults.append(refusing(429, **{"Retry-After": "3600"}))
    with pytest.raises(Unavailable, match=r"answered 429; try again in 3600 s"):
        importer.import_model(f"hf://{NAME}")
    assert rests == []


def test_a_hub_that_is_down(importer: ModelImporter, hub: HubServer, rests: list[float]) -> None:
    hub.faults.append(refusing(503))
    with pytest.raises(Unavailable, match=rf"hf://{NAME}: {hub.url} answered 503; try again later"):
        importer.import_model(f"hf://{NAME}")
    assert rests == [0.5, 1, 2, 4, 8]


def test_nobody_listens(importer: ModelImporter, hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with hub_server() as gone:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", gone.url)
    with pytest.raises(Unavailable, match="can't be reached"):
        importer.import_model(f"hf://{NAME}")


def test_offline(importer: ModelImporter, hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(Unavailable, match="HF_HUB_OFFLINE is set; unset it"):
        importer.import_model(f"hf://{NAME}")
    assert hub.requests == []


# Connections that break.


def test_an_interrupted_file_is_taken_up_at_the_last_byte(
    importer: ModelImporter, repository: ModelRepository, hub: HubServer, rests: list[float]
) -> None:
    data, sent = bytes(range(256)) * 4096, 300_000
    hub.repositories[NAME].files = {"weights.dat": data}
    with importer.open(f"hf://{NAME}") as candidate:
        hub.faults.append(of_files(lambda answer: answer.content(data, most=sent), times=3))
        hub.requests.clear()
        assert b"".join(candidate.files[0].chunks()) == data
    starts = [int(request.headers["Range"].split("=")[1].split("-")[0]) for request in hub.requests]
    assert starts == [0, sent, 2 * sent, 3 * sent]
    assert len(rests) == 3


def test_resets(importer: ModelImporter, repository: ModelRepository, hub: HubServer) -> None:
    hub.repositories[NAME] = Repository({"model.safetensors": WEIGHTS}, LFS)
    cut = iter([None, 1, 100_000, 0, 250_000, 900_000])  # the first is for inspection
    hub.faults.append(of_files(lambda answer: answer.content(WEIGHTS, most=next(cut, None), reset=True)))
    version = importer.import_model(f"hf://{NAME}")
    assert (repository.fetch(version) / "model.safetensors").read_bytes() == WEIGHTS


def test_a_hub_that_knows_no_ranges(importer: ModelImporter, repository: ModelRepository, hub: HubServer) -> None:
    hub.repositories[NAME].files = {"weights.dat": WEIGHTS}
    breaks = [True, True]

    def whole(answer: Answer) -> bool:
        del answer.headers["Range"]
        return answer.content(WEIGHTS, most=1_000_000 if breaks and breaks.pop() else None)

    hub.faults.append(of_files(whole))
    version = importer.import_model(f"hf://{NAME}")
    assert (repository.fetch(version) / "weights.dat").read_bytes() == WEIGHTS


def test_a_file_that_never_comes_to_its_end(
    importer: ModelImporter, repository: ModelRepository, hub: HubServer, rests: list[float]
) -> None:
    def ends(answer: Answer) -> bool:
        return answer.headers["Range"] != f"bytes=0-{(256 << 10) - 1}" and answer.content(WEIGHTS, most=0)

    hub.faults.append(of_files(ends))
    with pytest.raises(Unavailable, match=rf"model\.safetensors of hf://{NAME}: the connection to .* broke"):
        importer.import_model(f"hf://{NAME}", files=Filter(["model.safetensors"]))
    assert nothing_left(repository)


# A hub that lies.


def wrong(**changes: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda entry: entry | changes


LIES: dict[str, tuple[Callable[[dict[str, Any]], Any], type[ModelyardError], str]] = {
    "parent": (wrong(path="../x"), InvalidInput, r"'\.\./x' leaves its folder"),
    "absolute": (wrong(path="/etc/passwd"), InvalidInput, "leaves its folder"),
    "inner": (wrong(path="a/../../x"), InvalidInput, "leaves its folder"),
    "backslash": (wrong(path="a\\..\\x"), InvalidInput, "can't be kept on every system"),
    "control": (wrong(path="a\nb"), InvalidInput, "can't be kept on every system"),
    "twice": (wrong(path="config.json"), InvalidInput, "config.json is there twice"),
    "case": (wrong(path="Config.json"), InvalidInput, "differ by case alone"),
    "api": (wrong(path="../../api/whoami-v2"), InvalidInput, "leaves its folder"),
    "shorter": (wrong(size=100), IntegrityError, "bytes long, not 100 as listed"),
    "terabytes": (wrong(size=1 << 60), IntegrityError, "bytes long, not 1152921504606846976 as listed"),
    "negative": (wrong(size=-1), InvalidInput, "greater than or equal to 0"),
    "no-number": (wrong(size="much"), InvalidInput, "does not answer as a Hugging Face Hub does"),
    "other-content": (wrong(oid="0" * 40), IntegrityError, "README.md of hf://.* is not what its source says it is"),
    "other-sha256": (
        wrong(lfs={"oid": "0" * 64, "size": 48, "pointerSize": 1}),
        IntegrityError,
        "README.md is not what",
    ),
    "no-digest": (wrong(lfs={"oid": "../../x", "size": 48, "pointerSize": 1}), InvalidInput, "lfs.oid"),
    "a-list": (lambda entry: [], InvalidInput, "does not answer as a Hugging Face Hub does"),
}


@pytest.mark.parametrize("lie", LIES)
def test_lies_about_a_file(importer: ModelImporter, repository: ModelRepository, hub: HubServer, lie: str) -> None:
    change, error, why = LIES[lie]
    entries = hub.repositories[NAME].entries()
    entries[0] = change(entries[0])
    hub.faults.append(of_files(lambda answer: answer.json(entries), path="/tree/"))
    with pytest.raises(error, match=why) as caught:
        importer.import_model(f"hf://{NAME}", files=Filter(exclude=["quant/*"]))
    assert "\n" not in str(caught.value)
    assert nothing_left(repository)


def test_bytes_that_change_between_looking_and_moving(
    importer: ModelImporter, repository: ModelRepository, hub: HubServer
) -> None:
    good, bad = builders.npy([1.0]), builders.hostile()
    entry = {"type": "file", "path": "x.npy", "size": len(good), "oid": ""}
    hub.faults.append(of_files(lambda answer: answer.json([entry]), path="/tree/"))
    hub.faults.append(of_files(lambda answer: answer.content(good), times=1))
    hub.faults.append(of_files(lambda answer: answer.content(bad.ljust(len(good), b"."))))
    with pytest.raises(IntegrityError, match="not what they were a moment ago"):
        importer.import_model(f"hf://{NAME}")
    assert nothing_left(repository)


ANSWERS: dict[str, tuple[bytes, str]] = {
    "html": (b"<html>", "does not answer as a Hugging Face Hub does; check HF_ENDPOINT"),
    "deep": (b"[" * 100_000, "does not answer as a Hugging Face Hub does"),
    "no-commit": (b'{"id": "x", "sha": "main"}', "does not answer as a Hugging Face Hub does: sha"),
    "long": (b" " * (33 << 20), "more than 32 MB"),
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_answers_of_another_kind(importer: ModelImporter, hub: HubServer, answer: str) -> None:
    body, why = ANSWERS[answer]
    hub.faults.append(lambda request: request.send(200, body))
    with pytest.raises(InvalidInput, match=why):
        importer.import_model(f"hf://{NAME}")


def test_a_list_without_end(importer: ModelImporter, hub: HubServer) -> None:
    entries = [{"type": "file", "path": f"{number}", "size": 0, "oid": ""} for number in range(1000)]

    def endless(answer: Answer) -> bool:
        return answer.json(entries, headers={"Link": f'<{hub.url}{answer.path}>; rel="next"'})

    hub.faults.append(of_files(endless, path="/tree/"))
    with pytest.raises(InvalidInput, match="more than 10000 files"):
        importer.import_model(f"hf://{NAME}")
    assert len(hub.requests) < 20


@pytest.mark.parametrize("to", ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://[broken", ""])
def test_redirects_to_nowhere(importer: ModelImporter, repository: ModelRepository, hub: HubServer, to: str) -> None:
    hub.faults.append(of_files(lambda answer: answer.send(302, headers={"Location": to})))
    with pytest.raises(Unavailable):
        importer.import_model(f"hf://{NAME}")
    assert nothing_left(repository)


@pytest.mark.parametrize(
    "address", ["hf://", "hf://a/b/c", "hf://a/../b", "hf://a b", "hf://a@", "hf://datasets/a/b", "hf:///a", "hf://a?b"]
)
def test_addresses_that_name_no_model(importer: ModelImporter, address: str) -> None:
    with pytest.raises(InvalidInput, match=r"names no model on the Hub; write hf://org/name"):
        importer.import_model(address)


def test_an_endpoint_with_a_password(importer: ModelImporter, hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url.replace("http://", "http://ada:geheim@"))
    version = importer.import_model(f"hf://{NAME}", files=Filter(["*.json"]))
    assert "geheim" not in version.to_json().decode()
    with pytest.raises(NotFound) as caught:
        importer.import_model("hf://nobody/nothing")
    assert "geheim" not in str(caught.value)


def test_the_command(hub: HubServer, tmp_path: Path) -> None:
    hub.repositories[NAME].private = True
    environ = os.environ | {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "MODELYARD_CACHE": str(tmp_path / "cache")}
    (tmp_path / ".modelyard").mkdir()

    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "modelyard", "import", f"hf://{NAME}@main", "tiny", *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=True)
        assert TOKEN not in done.stdout + done.stderr
        return done.stdout

    found = json.loads(run("--include", "*Q4_K_M.gguf", "--dry-run", "--json"))
    assert (found["name"], found["version"], found["model"]["quantization"]) == ("tiny", "v1.0.0", "Q4_K_M")
    assert [file["sha256"] for file in found["files"]] == [hashlib.sha256(FILES["quant/tiny-Q4_K_M.gguf"]).hexdigest()]
    assert not list((tmp_path / ".modelyard").rglob("*"))
    assert run("--exclude", "*.gguf").startswith("imported tiny:v1.0.0@sha256:")
