"""The Hub's addresses, request by request."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from modelyard.repository import ModelVersion
from modelyard.store import LocalDisk

from .conftest import Serve, Served, minilm, write_files

MANY = 2345


@pytest.fixture
def version(served: Served, tmp_path: Path) -> ModelVersion:
    files = {"config.json": b"{}", "a/b/c.txt": b"c", "a/b/d.txt": b"d", "a/e.txt": b"e", "ab.txt": b"ab"}
    return served.register("m:v1.0.0", write_files(tmp_path / "m", files))


def commit(version: ModelVersion) -> str:
    return version.digest.hex[:40]


def test_what_is_known_of_a_real_model(served: Served) -> None:
    version = served.register("all-MiniLM-L6-v2:v1.0.0", minilm())
    told = served.http.get("/api/models/all-MiniLM-L6-v2").json()

    files = {each.pop("rfilename") for each in told.pop("siblings")}
    assert files == {file.path for file in version.files}
    assert told.pop("lastModified").startswith(f"{version.created_at:%Y-%m-%dT%H:%M:%S.}")
    total = version.model.parameters
    assert total and total > 22_000_000
    assert told == {
        "id": "all-MiniLM-L6-v2",
        "modelId": "all-MiniLM-L6-v2",
        "private": False,
        "sha": commit(version),
        "tags": ["sentence-transformers", "safetensors", "sentence-similarity", "en", "license:apache-2.0"],
        "cardData": {"license": "apache-2.0", "language": ["en"]},
        "pipeline_tag": "sentence-similarity",
        "library_name": "sentence-transformers",
        "safetensors": {"parameters": {}, "total": total},
    }


def test_what_is_not_known_is_left_out(served: Served, version: ModelVersion) -> None:
    told = served.http.get("/api/models/m/revision/v1.0.0", params={"blobs": "True"}).json()

    assert set(told) == {"id", "modelId", "private", "sha", "lastModified", "tags", "siblings"}
    (one,) = (each for each in told["siblings"] if each["rfilename"] == "a/e.txt")
    sha256 = "3f79bb7b435b05321651daefd374cdc681dc06faa65e374e38337b88ca046dea"  # of b"e"
    assert (one["size"], one["lfs"]) == (1, {"sha256": sha256, "size": 1, "pointerSize": 126})
    # git hash-object of the three lines by which git-lfs would stand for the file
    assert one["blobId"] == "2d847ddf67d356e2724e948be4915310332d7d32"


def test_a_card(served: Served, tmp_path: Path) -> None:
    card = b"---\nlicense: mit\nlanguage: [en, de]\npipeline_tag: fill-mask\n---\n"
    config = json.dumps({"model_type": "bert"}).encode()
    served.register("team/m:v1.0.0", write_files(tmp_path / "m", {"README.md": card, "config.json": config}))

    told = served.http.get("/api/models/team/m").json()

    assert (told["author"], told["cardData"]) == ("team", {"license": "mit", "language": ["en", "de"]})
    assert told["tags"] == ["transformers", "fill-mask", "en", "de", "license:mit"]


def test_a_tree(served: Served, version: ModelVersion) -> None:
    def paths(address: str, **params: Any) -> list[str]:
        answer = served.http.get(f"/api/models/m/tree/main{address}", params=params)
        assert answer.status_code == 200
        return [f"{each['type'][0]} {each['path']}" for each in answer.json()]

    assert paths("") == ["d a", "f ab.txt", "f config.json"]
    assert paths("/a") == paths("/a/") == ["d a/b", "f a/e.txt"]
    assert paths("/a", recursive="true") == ["d a/b", "f a/b/c.txt", "f a/b/d.txt", "f a/e.txt"]
    assert paths("", recursive="True") == [
        *("d a", "d a/b", "f a/b/c.txt", "f a/b/d.txt", "f a/e.txt"),
        *("f ab.txt", "f config.json"),
    ]


def test_entries_of_a_tree(served: Served, version: ModelVersion) -> None:
    folder, *_, file = served.http.get("/api/models/m/tree/main", params={"expand": "true"}).json()

    made = {"id": commit(version), "title": "v1.0.0", "date": folder["lastCommit"]["date"]}
    config = next(each for each in version.files if each.path == "config.json")
    assert len(folder.pop("oid")) == len(file.pop("oid")) == 40
    assert folder == {"type": "directory", "size": 0, "path": "a", "lastCommit": made}
    lfs = {"oid": config.sha256, "size": 2, "pointerSize": 126}
    assert file == {"type": "file", "size": 2, "path": "config.json", "lfs": lfs, "lastCommit": made}


@pytest.mark.parametrize("path", ["gone", "a/b/c", "config.json", "a//b", "../m", "A"])
def test_a_folder_that_is_not_there(served: Served, version: ModelVersion, path: str) -> None:
    answer = served.http.get(f"/api/models/m/tree/main/{path.replace('.', '%2E')}")

    assert (answer.status_code, answer.headers["x-error-code"]) == (404, "EntryNotFound")
    assert answer.headers["x-repo-commit"] == commit(version)
    assert f"m:v1.0.0 has no folder {path!r}" in answer.json()["error"] == answer.headers["x-error-message"]


def test_a_large_tree_comes_in_pages_of_one_commit(serve: Serve, tmp_path: Path) -> None:
    served = serve(LocalDisk(tmp_path / "store"))
    names = sorted(f"{number % 7}/file {number}.txt" for number in range(MANY))
    version = served.register("team/m:v1.0.0", write_files(tmp_path / "m", dict.fromkeys(names, b"same")))

    answer = served.http.get("/api/models/team/m/tree/main", params={"recursive": "True", "expand": "False"})
    served.register("team/m:v1.1.0", write_files(tmp_path / "n", {"new": b"new"}))
    sizes, found = [], []
    while True:
        sizes.append(len(answer.json()))
        found += [each["path"] for each in answer.json() if each["type"] == "file"]
        if "next" not in answer.links:
            break
        assert f"/hf/api/models/team/m/tree/{commit(version)}?" in str(answer.links["next"]["url"])
        answer = served.http.get(str(answer.links["next"]["url"]))

    assert found == names
    assert sizes == [1000, 1000, MANY + 7 - 2000]
    below = served.http.get("/api/models/team/m/tree/v1.0.0/3", params={"expand": "true", "limit": "10"})
    assert len(below.json()) == 10
    assert f"{commit(version)}/3?expand=true&limit=10&cursor=3%2Ffile" in str(below.links["next"]["url"])


def test_models_in_pages(served: Served, tmp_path: Path) -> None:
    folder = write_files(tmp_path / "m", {"a": b"a"})
    names = ["Alpha", "beta", "team/alpha", "team/gamma", "teams/x"]
    for name in names:
        served.register(f"{name}:v1.0.0", folder)

    def ids(**params: Any) -> list[str]:
        return [each["id"] for each in served.http.get("/api/models", params=params).json()]

    assert (ids(), ids(search="ALPHA"), ids(search="nothing")) == (names, ["Alpha", "team/alpha"], [])
    assert (ids(author="team"), ids(author="te")) == (["team/alpha", "team/gamma"], [])
    first = served.http.get("/api/models", params={"search": "a", "limit": 2, "sort": "downloads"})
    second = served.http.get(str(first.links["next"]["url"]))
    third = served.http.get(str(second.links["next"]["url"]))
    assert [[each["id"] for each in page.json()] for page in (first, second, third)] == [
        names[:2],
        names[2:4],
        names[4:],
    ]
    assert "next" not in third.links
    refused = served.http.get("/api/models", params={"pipeline_tag": "fill-mask"})
    assert (refused.status_code, refused.json()) == (
        400,
        {"error": "models can't be chosen by 'pipeline_tag' here; use search and author"},
    )


@pytest.mark.parametrize("limit", ["0", "-1", "x", "", "1.5", "٣", "9" * 5000])
def test_limits(served: Served, version: ModelVersion, limit: str) -> None:
    for address in ("/api/models", "/api/models/m/tree/main"):
        answer = served.http.get(address, params={"limit": limit})
        assert answer.status_code == (200 if limit.startswith("9") else 400)


def test_refs(served: Served, version: ModelVersion, tmp_path: Path) -> None:
    newer = served.register("m:v1.1.0", write_files(tmp_path / "n", {"new": b"new"}))
    preview = served.register("m:v2.0.0-rc.1", write_files(tmp_path / "p", {"p": b"p"}))
    only = served.register("p:v1.0.0-rc.1", write_files(tmp_path / "p", {"p": b"p"}))
    served.deploy(version)
    served.deploy(preview, "staging")
    served.repository.tag("m", "stable", "v1.0.0")

    told = served.http.get("/api/models/m/refs", params={"include_prs": 1}).json()
    told_only = served.http.get("/api/models/p/refs").json()

    old, new, rc = commit(version), commit(newer), commit(preview)
    found = {kind: {each["ref"]: each["targetCommit"] for each in told[kind]} for kind in ("branches", "tags")}
    heads = {"main": new, "latest": new, "staging": rc, "production": old, "stable": old}
    assert found["branches"] == {f"refs/heads/{name}": at for name, at in heads.items()}
    assert found["tags"] == {"refs/tags/v1.0.0": old, "refs/tags/v1.1.0": new, "refs/tags/v2.0.0-rc.1": rc}
    assert (told["converts"], told["pullRequests"], told_only["branches"]) == ([], [], [])
    assert told_only["tags"][0]["targetCommit"] == commit(only)
    assert served.http.get("/api/models/p").headers["x-error-code"] == "RevisionNotFound"


def test_the_same_content_twice_is_one_commit(served: Served, tmp_path: Path) -> None:
    same, other = (write_files(tmp_path / name, {"a": name.encode()}) for name in ("same", "other"))
    for version, folder in (("v1.0.0", same), ("v1.1.0", other), ("v1.2.0", same), ("v1.3.0", other)):
        served.register(f"m:{version}", folder)
    served.register("n:v1.0.0", same)
    asked = commit(served.repository.resolve("m:v1.0.0"))

    for _ in range(2):
        told = served.http.get(f"/api/models/m/tree/{asked}", params={"expand": "true"}).json()
        assert told[0]["lastCommit"]["title"] == "v1.2.0"
    assert served.http.get(f"/api/models/n/revision/{asked}").json()["sha"] == asked
    assert served.http.get(f"/api/models/m/revision/{asked[:-1]}").status_code == 404


def test_a_damaged_manifest_hides_no_other_version(serve: Serve, tmp_path: Path) -> None:
    served = serve(LocalDisk(tmp_path / "store"))
    for version in ("v1.0.0", "v1.1.0"):
        served.register(f"m:{version}", write_files(tmp_path / version, {"a": version.encode()}))
    good = commit(served.repository.resolve("m:v1.0.0"))
    (tmp_path / "store/versions/m/v1.1.0.json").write_text("{")

    assert served.http.get(f"/api/models/m/revision/{good}").json()["sha"] == good
    damaged = served.http.get("/api/models/m")
    assert damaged.status_code == 422 and "v1.1.0.json" in damaged.json()["error"]


def test_what_was_taken_back(served: Served, version: ModelVersion, tmp_path: Path) -> None:
    newer = served.register("m:v1.1.0", write_files(tmp_path / "n", {"new": b"new"}))

    def told(revision: str) -> Any:
        return served.http.get(f"/api/models/m/revision/{revision}").json().get("sha")

    assert told("main") == told(commit(newer)) == commit(newer)
    served.repository.yank("m", "v1.1.0", reason="a test")
    assert (told("main"), told("v1.1.0"), told(commit(newer))) == (commit(version), commit(newer), commit(newer))
    served.repository.delete("m", "v1.1.0", reason="a test")
    gone = served.http.get("/m/resolve/v1.1.0/new")
    assert (told("main"), told("v1.1.0"), told(commit(newer))) == (commit(version), None, None)
    assert (gone.status_code, gone.headers["x-error-code"]) == (404, "RevisionNotFound")
    assert [each["name"] for each in served.http.get("/api/models/m/refs").json()["tags"]] == ["v1.0.0"]


def test_paths_info(served: Served, version: ModelVersion) -> None:
    asked = ["a/b", "config.json", "gone", "", "/", "a/e.txt/", "../m", "a/b"]
    address = "/api/models/m/paths-info/main"
    as_form = served.http.post(address, data={"paths": asked, "expand": "True"})
    as_json = served.http.post(address, json={"paths": asked, "expand": True})
    single = served.http.post(address, json={"paths": "config.json"})

    found = [(each["type"], each["path"], each["lastCommit"]["title"]) for each in as_form.json()]
    folder = ("directory", "a/b", "v1.0.0")
    assert found == [folder, ("file", "config.json", "v1.0.0"), ("file", "a/e.txt", "v1.0.0"), folder]
    assert as_json.json() == as_form.json()
    assert [list(each) for each in single.json()] == [["type", "oid", "size", "path", "lfs"]]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'{"paths": [1]}', b'{"paths": {}, "expand": 1}', b'{"path": "a"}', b"\xff", b"[" * 100_000],
)
def test_paths_info_that_is_not_understood(served: Served, version: ModelVersion, body: bytes) -> None:
    for kind in ("application/json", "application/x-www-form-urlencoded"):
        answer = served.http.post("/api/models/m/paths-info/main", content=body, headers={"content-type": kind})
        assert answer.status_code == 400


def test_paths_info_has_its_limits(served: Served, version: ModelVersion) -> None:
    address = "/api/models/m/paths-info/main"

    assert served.http.post(address, content=b"paths=" + bytes(2 << 20)).status_code == 413
    assert served.http.post(address, data={"paths": ["a"] * 1001}).status_code == 400
    assert len(served.http.post(address, data={"paths": ["a"] * 1000}).json()) == 1000


@pytest.mark.parametrize(
    ("address", "code"),
    [
        ("/api/models/nothing", "RepoNotFound"),
        ("/api/models/team/nothing/tree/main", "RepoNotFound"),
        ("/api/models/nothing/refs", "RepoNotFound"),
        ("/api/models/v1.0.0", "RepoNotFound"),
        ("/api/models/a%00b", "RepoNotFound"),
        ("/api/models/%C3%A9", "RepoNotFound"),
        ("/api/models/M", "RepoNotFound"),
        ("/%2e%2e/resolve/main/config.json", "RepoNotFound"),
        ("/datasets/m/resolve/main/config.json", "RepoNotFound"),
        ("/api/models/m/revision/v9.0.0", "RevisionNotFound"),
        ("/api/models/m/revision/production", "RevisionNotFound"),
        ("/api/models/m/revision/refs%2Fpr%2F1", "RevisionNotFound"),
        ("/api/models/m/revision/01.2.3", "RevisionNotFound"),
        ("/m/resolve/%2e%2e/config.json", "RevisionNotFound"),
        ("/m/resolve/main/gone.json", "EntryNotFound"),
        ("/m/resolve/main/a", "EntryNotFound"),
        ("/m/resolve/main/", "EntryNotFound"),
        ("/m/resolve/main//config.json", "EntryNotFound"),
        ("/m/resolve/main/..%2f..%2fetc%2fpasswd", "EntryNotFound"),
        ("/m/resolve/main/a/%2e%2e/config.json", "EntryNotFound"),
        ("/m/resolve/main/config.json%00", "EntryNotFound"),
        ("/m/resolve/main/%E2%9C%93", "EntryNotFound"),
        ("/api/whoami-v2", None),
        ("/api/models/m/discussions", "RepoNotFound"),
        ("/api/datasets/m", None),
        ("/m", None),
    ],
)
def test_what_is_not_there(served: Served, version: ModelVersion, address: str, code: str | None) -> None:
    for method in ("GET", "HEAD"):
        answer = served.http.request(method, address)

        assert answer.status_code == 404
        assert answer.headers.get("x-error-code") == code
        assert answer.headers["x-error-message"].isascii()
        assert method == "HEAD" or set(answer.json()) == {"error"}


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_can_be_changed(served: Served, version: ModelVersion, method: str) -> None:
    for address in ("/api/models/m", "/m/resolve/main/config.json", "/api/models/m/refs"):
        assert served.http.request(method, address).status_code == 405
