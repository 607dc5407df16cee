"""Importing from a model hub: what comes, what is asked for, and where the token goes."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import huggingface_hub
import pytest

from modelyard.errors import InvalidInput, NotFound, Refused
from modelyard.importer import ModelImporter
from modelyard.repository import ModelRepository
from modelyard.store.files import Filter

from .model import FILES, NAME, WEIGHTS, builders
from .server import COMMIT, TOKEN, HubServer, Repository, hub_server, of_files


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
    assert all(NAME in request.path for request in hub.requests), "nothing else is asked for"


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
    assert builders.left_behind(repository) == []
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


@pytest.mark.parametrize("token", ["hf_geheim\x07", "hf_geheimé"])
def test_a_token_that_is_none(importer: ModelImporter, monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(Refused, match="the Hugging Face token can't be used; set HF_TOKEN") as caught:
        importer.import_model(f"hf://{NAME}")
    assert "geheim" not in str(caught.value)


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


def test_the_command(hub: HubServer, tmp_path: Path) -> None:
    hub.repositories[NAME].private = True
    # Other tests load models in this process, which turns the Hub off in its environment.
    environ = os.environ | {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "0"}
    environ |= {"MODELYARD_CACHE": str(tmp_path / "cache")}
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
