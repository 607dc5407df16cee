"""The Hub's own clients, unchanged, with nothing but HF_ENDPOINT set: by tag, by version, by commit id."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from modelyard.store import LocalDisk, Store

from .conftest import Ask, Run, Serve, Served, client_environ, minilm, write_files

HUB = """
from pathlib import Path
from huggingface_hub import HfApi, HfFileSystem, hf_hub_download, snapshot_download
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError
api = HfApi()
def read(folder):
    root = Path(folder)
    return {path.relative_to(root).as_posix(): path.read_text() for path in root.rglob("*") if path.is_file()}
def fails(error, call, *args, **options):
    try:
        call(*args, **options)
    except error as found:
        return str(found)
"""


def files(text: str) -> dict[str, bytes]:
    return {"config.json": b"{}", "weights.bin": text.encode(), "sub/deep er/ä#%41+&=;.txt": text.encode()}


@pytest.fixture
def models(shared_store: Store, serve: Serve, tmp_path: Path) -> Served:
    """`face-recognizer` with two versions, the first in production, and `team/other`."""
    served = serve(shared_store)
    first = served.register("face-recognizer:v1.0.0", write_files(tmp_path / "1", files("first")))
    served.register("face-recognizer:v1.1.0", write_files(tmp_path / "2", files("second")))
    served.register("team/other:v0.1.0", write_files(tmp_path / "3", {"sub/a.bin": b"other"}))
    served.deploy(first)
    served.repository.tag("face-recognizer", "stable", "v1.0.0")
    return served


def test_snapshots_by_tag_version_and_commit(models: Served, ask: Ask) -> None:
    code = """
commit = api.model_info(name, revision="v1.0.0").sha
revisions = [None, "main", "latest", "v1.1.0", "1.1.0", "production", "stable", "v1.0.0", commit]
result = [[str(revision), read(snapshot_download(name, revision=revision))] for revision in revisions]
result.append(["other", read(snapshot_download("team/other"))])
one = hf_hub_download(name, "sub/deep er/ä#%41+&=;.txt", revision="production")
result.append(["one", Path(one).read_text()])
"""
    got = dict(ask(models.url, HUB + code, name="face-recognizer"))

    assert got.pop("other") == {"sub/a.bin": "other"}
    assert got.pop("one") == "first"
    texts = {revision: found["weights.bin"] for revision, found in got.items()}
    newest = dict.fromkeys(("None", "main", "latest", "v1.1.0", "1.1.0"), "second")
    commit = models.repository.resolve("face-recognizer:v1.0.0").digest.hex[:40]
    assert texts == newest | dict.fromkeys(("production", "stable", "v1.0.0", commit), "first")
    assert all(found.keys() == files("").keys() for found in got.values())


def test_a_promotion_changes_what_a_client_gets(models: Served, ask: Ask) -> None:
    code = HUB + 'result = read(snapshot_download("face-recognizer", revision="production"))["weights.bin"]'
    before = ask(models.url, code)
    models.deploy(models.repository.resolve("face-recognizer:v1.1.0"))
    after = ask(models.url, code)

    assert (before, after) == ("first", "second")


def test_what_the_api_tells(models: Served, ask: Ask) -> None:
    code = """
info = api.model_info(name, revision="production", files_metadata=True)
refs = api.list_repo_refs(name)
tree = list(api.list_repo_tree(name, recursive=True, expand=True))
result = {
    "info": [info.id, info.private, sorted(s.rfilename for s in info.siblings), info.last_modified.year > 2000],
    "lfs": {s.rfilename: [s.size, s.lfs.sha256] for s in info.siblings},
    "branches": {ref.name: ref.target_commit for ref in refs.branches},
    "tags": {ref.name: ref.target_commit for ref in refs.tags},
    "tree": [[type(each).__name__, each.path, each.last_commit.title] for each in tree],
    "top": [each.path for each in api.list_repo_tree(name)],
    "below": [each.path for each in api.list_repo_tree(name, "sub", revision="v1.0.0")],
    "paths": [each.path for each in api.get_paths_info(name, ["sub", "gone", "config.json"], expand=True)],
    "exists": [api.file_exists(name, "config.json"), api.file_exists(name, "no"), api.repo_exists(name),
               api.repo_exists("nothing"), api.revision_exists(name, "stable"), api.revision_exists(name, "v9.0.0")],
    "models": [[m.id for m in api.list_models(**query)] for query in ({}, {"search": "FACE"}, {"author": "team"})],
    "verified": api.verify_repo_checksums(name, local_dir=snapshot_download(name)).mismatches,
}
"""
    got = ask(models.url, HUB + code, name="face-recognizer")
    first, second = (models.repository.resolve(f"face-recognizer:{v}") for v in ("v1.0.0", "v1.1.0"))
    old, new = first.digest.hex[:40], second.digest.hex[:40]

    assert got["info"] == ["face-recognizer", False, sorted(files("")), True]
    assert got["lfs"] == {file.path: [file.size, file.sha256] for file in first.files}
    assert got["branches"] == {"main": new, "latest": new, "production": old, "stable": old}
    assert got["tags"] == {"v1.0.0": old, "v1.1.0": new}
    paths = ["config.json", "sub", "sub/deep er", "sub/deep er/ä#%41+&=;.txt", "weights.bin"]
    kinds = ["RepoFile", "RepoFolder", "RepoFolder", "RepoFile", "RepoFile"]
    assert got["tree"] == [[kind, path, "v1.1.0"] for kind, path in zip(kinds, paths, strict=True)]
    assert got["top"] == ["config.json", "sub", "weights.bin"]
    assert got["below"] == ["sub/deep er"]
    assert got["paths"] == ["sub", "config.json"]
    assert got["exists"] == [True, False, True, False, True, False]
    assert got["models"] == [["face-recognizer", "team/other"], ["face-recognizer"], ["team/other"]]
    assert got["verified"] == []


def test_the_errors_that_clients_raise(models: Served, ask: Ask) -> None:
    code = """
result = [
    fails(RepositoryNotFoundError, api.model_info, "nothing"),
    fails(RepositoryNotFoundError, api.model_info, "v1.0.0"),
    fails(RepositoryNotFoundError, snapshot_download, "team/nothing", revision="production"),
    fails(RevisionNotFoundError, snapshot_download, name, revision="staging"),
    fails(RevisionNotFoundError, hf_hub_download, name, "config.json", revision="v9.0.0"),
    fails(RevisionNotFoundError, hf_hub_download, name, "config.json", revision="0" * 40),
    fails(RevisionNotFoundError, api.model_info, name, revision="refs/pr/1"),
    fails(EntryNotFoundError, hf_hub_download, name, "tokenizer.json"),
    fails(EntryNotFoundError, lambda: list(api.list_repo_tree(name, "gone"))),
]
"""
    got = ask(models.url, HUB + code, name="face-recognizer")

    assert None not in got
    assert "there is no model 'nothing'" in got[0] and "face-recognizer has no tag 'staging'" in got[3]
    assert "the newest are v1.0.0, v1.1.0" in got[4] and "v1.1.0 has no file 'tokenizer.json'" in got[7]


def test_a_file_system(models: Served, ask: Ask) -> None:
    code = """
fs = HfFileSystem()
result = [
    fs.ls("team/other", detail=False),
    fs.find("team/other@v0.1.0"),
    fs.read_text("team/other@v0.1.0/sub/a.bin"),
    [fs.info(f"team/other/sub{rest}", expand_info=True)["type"] for rest in ("", "/a.bin")],
    [fs.exists(f"team/other{rest}") for rest in ("/sub/a.bin", "/sub/b.bin", "@v9.0.0/sub/a.bin")],
    fs.cat_file("team/other/sub/a.bin", start=1, end=3).decode(),
]
"""
    got = ask(models.url, HUB + code)

    assert got == [
        ["team/other/sub"],
        ["team/other@v0.1.0/sub/a.bin"],
        "other",
        ["directory", "file"],
        [True, False, False],
        "th",
    ]


def test_the_command_line(models: Served, run: Run, tmp_path: Path) -> None:
    hf = str(Path(sys.executable).parent / "hf")

    run(models.url, hf, "download", "face-recognizer", "--revision", "production", "--local-dir", "all")
    run(models.url, hf, "download", "team/other", "sub/a.bin", "--local-dir", "one")
    listed = run(models.url, hf, "models", "ls", "--search", "other", "--quiet")

    found = {
        p.relative_to(tmp_path / "all").as_posix(): p.read_bytes()
        for p in (tmp_path / "all").rglob("*")
        if p.is_file() and ".cache" not in p.parts
    }
    assert found == files("first")
    assert (tmp_path / "one" / "sub" / "a.bin").read_bytes() == b"other"
    assert "team/other" in listed and "face-recognizer" not in listed


MAKE = """
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel, PreTrainedTokenizerFast
vocabulary = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "hello", "world"])}
words = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
words.pre_tokenizer = pre_tokenizers.Whitespace()
for seed, version in enumerate(("v1.0.0", "v1.1.0")):
    torch.manual_seed(seed)
    config = BertConfig(vocab_size=4, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    BertModel(config).save_pretrained(version)
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", pad_token="[PAD]").save_pretrained(version)
print("made", flush=True)
"""

LOAD = """
def answer(source, **options):
    tokenizer, model = (kind.from_pretrained(source, **options) for kind in (AutoTokenizer, AutoModel))
    return model(**tokenizer("hello world", return_tensors="pt")).last_hidden_state.flatten().tolist()
def tell(revision):
    asked = answer("face-recognizer", revision=revision)
    print([version for version in ("v1.0.0", "v1.1.0") if answer(version) == asked], flush=True)
commit = input()
tell("production")
input()
for revision in ("production", "v1.0.0", commit):
    tell(revision)
"""


def test_transformers(serve: Serve, tmp_path: Path) -> None:
    served = serve(LocalDisk(tmp_path / "store"))
    code = MAKE + LOAD
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env=client_environ(served.url, tmp_path),
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as client:
        assert client.stdin and client.stdout
        made = client.stdout.readline()
        versions = [served.register(f"face-recognizer:{v}", tmp_path / v) for v in ("v1.0.0", "v1.1.0")]
        served.deploy(versions[0])
        print(versions[1].digest.hex[:40], file=client.stdin, flush=True)
        before = client.stdout.readline()
        served.deploy(versions[1])
        after, said = client.communicate("promoted\n", timeout=120)

    assert (made, before) == ("made\n", "['v1.0.0']\n"), said
    assert after.splitlines() == ["['v1.1.0']", "['v1.0.0']", "['v1.1.0']"], said


def test_sentence_transformers(s3_store: Store, serve: Serve, ask: Ask) -> None:
    served = serve(s3_store)
    served.deploy(served.register("all-MiniLM-L6-v2:v1.0.0", minilm()), "staging")
    code = """
from sentence_transformers import SentenceTransformer
asked, local = (SentenceTransformer(name, revision=revision) for name, revision in ((name, "staging"), (path, None)))
result = [float(abs(asked.encode("a cat") - local.encode("a cat")).max()), asked.get_max_seq_length()]
"""
    assert ask(served.url, code, name="all-MiniLM-L6-v2", path=str(minilm())) == [0.0, 256]
