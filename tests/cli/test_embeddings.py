"""embed TEXT… and embed compare, on real models small enough for a test."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from .conftest import Cli, refused


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with two versions of `static`, 8 and 5 wide."""
    import importlib.util

    from modelyard.importer.inspect import inspect_files
    from modelyard.repository import ModelRepository
    from modelyard.store import Cache, LocalDisk

    spec = importlib.util.spec_from_file_location("builders", Path(__file__).parents[1] / "embeddings" / "builders.py")
    assert spec and spec.loader
    builders = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(builders)
    root = tmp_path_factory.mktemp("models")
    repository = ModelRepository(
        LocalDisk(root / "store"), cache=Cache(root / "cache"), inspect=inspect_files, user="tester"
    )
    for version, dimension in (("v1.0.0", 8), ("v2.0.0", 5)):
        folder = builders.save_static(root / version, dimension=dimension, seed=dimension)
        repository.register_model("static", version, folder, {})
    return root / "store"


@pytest.fixture
def embed(cli: Cli, folder: Path, models: Path) -> Cli:
    shutil.copytree(models, folder / ".modelyard")
    cli("config", "set", "embeddings", "semantic-search", "static:v1.0.0")
    cli("config", "set", "embeddings", "clustering", '{"variants": {"static:v1.0.0": 1, "static:v2.0.0": 1}}')
    return cli


def test_vectors_come_a_line_each_with_their_stamp(embed: Cli) -> None:
    done = embed("embed", "a cat", "ein Hündchen")

    assert (done.code, done.err) == (0, "")
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert [row["text"] for row in rows] == ["a cat", "ein Hündchen"]
    assert [len(row["embedding"]) for row in rows] == [8, 8]
    assert rows[0]["model"].startswith("static:v1.0.0@sha256:")


def test_as_json_they_name_model_version_and_digest(embed: Cli) -> None:
    printed = embed("embed", "a cat", "--model", "static", "--json")
    found = printed.json

    (vector,) = (line for line in printed.out.splitlines() if '"embedding":' in line)
    assert json.loads(vector.partition(":")[2]) == found["embeddings"][0]["embedding"]
    assert (found["model"], found["version"], found["dimension"]) == ("static", "v2.0.0", 5)
    assert found["stamp"] == f"static:v2.0.0@{found['digest']}"
    assert [len(row["embedding"]) for row in found["embeddings"]] == [5]


def test_a_key_keeps_its_variant(embed: Cli) -> None:
    def asked(key: str) -> str:
        found: str = embed("embed", "a", "--task", "clustering", "--key", key, "--json").json["version"]
        return found

    first = {key: asked(key) for key in "abcdefgh"}
    assert set(first.values()) == {"v1.0.0", "v2.0.0"}
    assert {key: asked(key) for key in first} == first


@pytest.mark.parametrize(
    "line", [("--", "compare"), ("--task", "semantic-search", "compare"), ("texts", "compare"), ("--", "texts")]
)
def test_a_text_called_like_a_command(embed: Cli, line: tuple[str, ...]) -> None:
    assert [json.loads(row)["text"] for row in embed("embed", *line).out.splitlines()] == [line[-1]]


def test_wrong_usage(embed: Cli) -> None:
    refused(embed("embed", "--colour", "red"), "No such option: --colour", code=2)
    refused(embed("embed", "compare", "static"), "Missing argument 'B'", code=2)
    refused(embed("embed", "texts"), "Missing argument 'TEXT'", code=2)


def test_a_task_or_model_that_is_not_there(embed: Cli) -> None:
    refused(embed("embed", "a", "--task", "nothing"), "no embedding model is configured for the task 'nothing'")
    refused(embed("embed", "a", "--model", "nothing"), "there is no model 'nothing'")


def test_compare(embed: Cli, folder: Path) -> None:
    pairs = [("the cat sleeps", "cat on sofa"), ("bank", "money"), ("river", "water street")]
    lines = [json.dumps({"query": query, "positives": [text], "negatives": ["red"]}) for query, text in pairs]
    (folder / "pairs.jsonl").write_text("\n".join(lines))
    line = ("embed", "compare", "static:v1.0.0", "static:v2.0.0", "--dataset", "pairs.jsonl", "--k", "2")

    printed, found = embed(*line), embed(*line, "--json").json

    assert (printed.code, printed.err) == (0, "")
    assert "recall@2" in printed.out and "nDCG@2" in printed.out and "texts/s" in printed.out
    assert (found["queries"], found["documents"], found["k"]) == (3, 4, 2)
    assert (found["first"]["dimension"], found["second"]["dimension"]) == (8, 5)
    assert found["recall"]["low"] <= found["recall"]["mean"] <= found["recall"]["high"]


def test_compare_without_data(embed: Cli, folder: Path) -> None:
    (folder / "bad.jsonl").write_text("{}\n")
    refused(embed("embed", "compare", "a", "b", "--dataset", "nothing"), "there is no data set nothing")
    refused(embed("embed", "compare", "a", "b", "--dataset", "bad.jsonl"), "bad.jsonl:1 can't be read: query")


def test_what_the_card_says_is_shown_in_words(embed: Cli, folder: Path, models: Path) -> None:
    shutil.copytree(models.parent / "v1.0.0", folder / "model")
    (folder / "model" / "README.md").write_text("---\nlanguage: [en, de]\n---\n")
    assert embed("register", "model", "spoken:v1.0.0").code == 0

    assert "  languages: en, de\n" in embed("show", "spoken").out
