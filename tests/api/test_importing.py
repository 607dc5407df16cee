"""The importer reads from another modelyard's /hf as from any hub."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub.constants
import pytest

from modelyard.errors import NotFound
from modelyard.importer import ModelImporter
from modelyard.importer.inspect import inspect_files
from modelyard.repository import ModelRepository
from modelyard.store import Cache, Memory, Store

from .conftest import Serve


@pytest.fixture
def here(tmp_path: Path) -> ModelRepository:
    return ModelRepository(Memory(), cache=Cache(tmp_path / "here"), inspect=inspect_files, user="ada")


@pytest.mark.parametrize("shared_store", ["disk", "s3"], indirect=True)
def test_import_by_tag_version_and_commit(
    serve: Serve, shared_store: Store, here: ModelRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = serve(shared_store)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", served.url)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    model = tmp_path / "model"
    (model / "inner").mkdir(parents=True)
    (model / "inner" / "big.dat").write_bytes(bytes(range(256)) * 40_000)
    (model / "empty.txt").write_bytes(b"")
    first = served.register("team/digits:v1.0.0", model)
    (model / "config.json").write_text('{"model_type": "bert"}')
    second = served.register("team/digits:v1.1.0", model)
    served.deploy(first)

    importer = ModelImporter(here)
    by_tag = importer.import_model("hf://team/digits@production", "digits")
    assert (by_tag.digest, str(by_tag.version)) == (first.digest, "v1.0.0")
    assert by_tag.lineage == {"source": f"hf://team/digits@{first.digest.hex[:40]}"}
    by_version = importer.import_model("hf://team/digits@v1.1.0")
    assert (by_version.name, str(by_version.version)) == ("digits", "v1.1.0")
    assert by_version.digest == second.digest == importer.import_model("hf://team/digits", "again").digest
    assert not [damage for version in (by_tag, by_version) for damage in here.verify(version)]

    with pytest.raises(NotFound, match=r"team/digits has no revision 'v9\.0\.0'"):
        importer.import_model("hf://team/digits@v9.0.0")
    with pytest.raises(NotFound, match="there is no model nobody/nothing"):
        importer.import_model("hf://nobody/nothing")
