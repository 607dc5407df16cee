"""Estates: what is called what, what is there already, what can't come; in folders, in a bucket, in a modelyard."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from modelyard import defaults
from modelyard.errors import InvalidInput, NotFound, Unavailable
from modelyard.importer.buckets import estate_of, group
from modelyard.importer.estate import Item, Outcome, Takeover, our_name, our_version, plan
from modelyard.importer.inspect import inspect_files
from modelyard.importer.sources import Fetched, Listed
from modelyard.repository import ModelRepository
from modelyard.settings import Settings
from modelyard.store import Cache, LocalDisk, Memory, Object, Store
from modelyard.yard import Yard

from . import builders

HEADER = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
READING = {"get", "get_range", "stream", "objects", "list_directories"}


def weights(number: int) -> bytes:
    return builders.safetensors(HEADER, bytes([number]) * 8)


FILES = {
    "good/1/model.safetensors": weights(1),
    "good/2/model.safetensors": weights(2),
    "good/2/more/vocab.txt": b"a b",
    "a team/other model/v1.2/model.safetensors": weights(3),
    "bad/1.0.0/model.pkl": builders.hostile(),
    "loose/notes.txt": b"nothing",
    "README.md": b"# Our models",
}


@pytest.fixture
def repository(tmp_path: Path) -> ModelRepository:
    return ModelRepository(Memory(), cache=Cache(tmp_path / "cache"), inspect=inspect_files, user="ada")


@pytest.fixture
def bucket(shared_store: Store) -> Store:
    for key, data in FILES.items():
        shared_store.put(key, data)
    return shared_store


def take(repository: ModelRepository, address: str, *, dry_run: bool = False, **options: Any) -> dict[str, Outcome]:
    estate, address = estate_of(address)
    items = plan(estate.list(address), taken=repository.list_models())
    return {
        f"{each.item.listed.name} {each.item.listed.version}": each
        for each in Takeover(repository, estate, **options).run(items, dry_run=dry_run)
    }


def states(outcomes: dict[str, Outcome]) -> dict[str, str]:
    return {name: f"{outcome.state} {outcome.item.ref}" for name, outcome in outcomes.items()}


def test_plain_folders(repository: ModelRepository, bucket: Store, requests: list[tuple[str, str]]) -> None:
    expected = {
        "a team/other model v1.2": "possible a-team/other-model:v1.2.0",
        "bad 1.0.0": "refused bad:v1.0.0",
        "good 1": "possible good:v1.0.0",
        "good 2": "possible good:v2.0.0",
        "loose ": "refused None",
    }
    requests.clear()
    assert states(take(repository, bucket.url, dry_run=True)) == expected
    assert {operation for operation, _ in requests} <= READING
    outcomes = take(repository, bucket.url)
    assert states(outcomes) == {name: state.replace("possible", "imported") for name, state in expected.items()}
    assert "model.pkl holds a pickle" in outcomes["bad 1.0.0"].why
    assert "no version's folder" in outcomes["loose "].why
    files, found = repository.get_model("good", "v2.0.0")
    assert {str(path.relative_to(files)) for path in files.rglob("*") if path.is_file()} == {
        "model.safetensors",
        "more/vocab.txt",
    }
    where = bucket.url.startswith("s3")
    assert found["source"] == (
        {"kind": "bucket", "url": f"{bucket.url}/good/2"} if where else {"kind": "local", "path": "good/2"}
    )


def test_a_second_run_moves_nothing(
    repository: ModelRepository, bucket: Store, requests: list[tuple[str, str]]
) -> None:
    take(repository, bucket.url, trust_pickle="ours")
    requests.clear()
    again = states(take(repository, bucket.url))
    assert again["bad 1.0.0"] == "present bad:v1.0.0"
    assert {state.split()[0] for state in again.values()} == {"present", "refused"}
    assert {operation for operation, _ in requests} <= READING - {"get_range", "stream"}


def test_content_that_is_there_under_other_dates(repository: ModelRepository, bucket: Store) -> None:
    take(repository, bucket.url)
    bucket.put("good/1/model.safetensors", weights(1))
    bucket.put("good/2/model.safetensors", weights(9))
    outcomes = take(repository, bucket.url)
    assert outcomes["good 1"].state == "present"
    assert outcomes["good 2"].state == "refused"
    assert outcomes["good 2"].why.startswith("good:v2.0.0 exists with other content")


def test_what_was_deleted_stays_away(repository: ModelRepository, bucket: Store) -> None:
    take(repository, bucket.url)
    repository.delete("good", "v1.0.0", reason="wrong labels")
    assert "was deleted (wrong labels)" in take(repository, bucket.url)["good 1"].why


def test_metadata_for_all(repository: ModelRepository, bucket: Store) -> None:
    take(repository, bucket.url, metadata={"team": "vision"})
    assert repository.resolve("good:v1.0.0").metadata["team"] == "vision"


def test_a_modelyard(
    bucket: Store,
    tmp_path: Path,
    open_repository: Callable[..., ModelRepository],
    repository: ModelRepository,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = Settings(cache=tmp_path / "cache", user="ada")
    monkeypatch.setattr(defaults, "yard", lambda: Yard(settings))
    first = open_repository(LocalDisk(tmp_path / "first"), inspect=inspect_files)
    take(first, bucket.url)
    first.tag("good", "best", "v1.0.0")
    first.delete("a-team/other-model", "v1.2.0", reason="gone")
    address = first.storage.url
    assert states(take(repository, address)) == {
        "good v1.0.0": "imported good:v1.0.0",
        "good v2.0.0": "imported good:v2.0.0",
    }
    for version in ("v1.0.0", "v2.0.0"):
        copy, original = repository.resolve(f"good:{version}"), first.resolve(f"good:{version}")
        assert copy.same_content(original)
    assert repository.tags("good") == {"latest": "v2.0.0", "best": "v1.0.0"}
    assert {outcome.state for outcome in take(repository, address).values()} == {"present"}
    first.yank("good", "v1.0.0", reason="wrong labels")
    assert "yanked there: wrong labels" in take(open_repository(Memory()), address)["good v1.0.0"].why


@pytest.mark.parametrize(
    ("there", "here"),
    [("3", "v3.0.0"), ("007", "v7.0.0"), ("v2", "v2.0.0"), ("1.4", "v1.4.0"), ("1.2.3-rc.1", "v1.2.3-rc.1")],
)
def test_versions(there: str, here: str) -> None:
    assert str(our_version(there)) == here


@pytest.mark.parametrize("there", ["", "final", "1.2.3.4", "2024-01-01", "1.2.3+build", "v"])
def test_no_versions(there: str) -> None:
    with pytest.raises(InvalidInput):
        our_version(there)


def test_names() -> None:
    assert [our_name(text) for text in ("m", "my model", "team/m", "a/b/c d")] == ["m", "my-model", "team/m", "a/b-c-d"]
    with pytest.raises(InvalidInput):
        our_name("///")


def listed(*pairs: str) -> list[Listed]:
    return [Listed(pair, pair.partition(":")[0], pair.partition(":")[2]) for pair in pairs]


def planned(items: list[Item]) -> dict[str, str]:
    return {item.listed.address: item.ref or item.why.split(";")[0] for item in items}


def test_a_plan() -> None:
    assert planned(plan(listed("m:10", "m:9", "n:x", "m:1"))) == {
        "m:1": "m:v1.0.0",
        "m:9": "m:v9.0.0",
        "m:10": "m:v10.0.0",
        "n:x": "can't take 'x' as a version: it is not a semantic version",
    }
    assert [item.listed.version for item in plan(listed("m:10", "m:9", "m:1"))] == ["1", "9", "10"]


def test_nothing_becomes_the_same() -> None:
    found = planned(plan(listed("a b:1", "a-b:1", "c:1", "c:1.0.0", "D:1", "d:2", "E:1"), taken=["e"]))
    assert found == {
        "a b:1": "a-b:v1.0.0",
        "a-b:1": "'a b' becomes a-b too",
        "c:1": "c:v1.0.0",
        "c:1.0.0": "version '1' becomes v1.0.0 too",
        "D:1": "D:v1.0.0",
        "d:2": "'D' becomes d too",
        "E:1": "E differs from the model e by case alone",
    }


def test_models_are_chosen_by_name() -> None:
    chosen = plan(listed("a-1:1", "a-2:1", "b:1"), include=["a-*"], exclude=["*-2"])
    assert [item.name for item in chosen] == ["a-1"]


def test_files_are_grouped() -> None:
    keys = ["m/1/a", "m/1/b/2/c", "n/m/3/a", "x/a", "x/y/b", "README", "m/4"]
    objects = [Object(key, 0 if key == "m/4" else 1, None) for key in keys]  # type: ignore[arg-type]  # not looked at
    assert {where: len(found) for where, found in group(objects).items()} == {
        ("m", "1"): 2,
        ("n/m", "3"): 1,
        ("x", ""): 2,
    }


@pytest.mark.parametrize("address", ["hf://org/model", "ftp://host/models"])
def test_what_is_no_estate(address: str) -> None:
    with pytest.raises(InvalidInput, match="can't say what it holds"):
        estate_of(address)


def test_an_estate_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        estate_of(str(tmp_path / "nothing"))


@dataclass
class Away:
    """A place that went away after it said what it holds."""

    example: str = "away://"
    asked: list[str] = field(default_factory=list)

    def matches(self, source: str) -> bool:
        return True

    def list(self, source: str) -> Any:
        return iter(())

    def open(self, source: str) -> AbstractContextManager[Fetched]:
        self.asked.append(source)
        raise Unavailable("nobody is there")


def test_a_place_that_is_away_is_not_asked_for_ever(repository: ModelRepository) -> None:
    estate = Away()
    outcomes = Takeover(repository, estate).run(plan(listed(*(f"m:{n}" for n in range(100)))))
    assert [outcome.state for outcome in outcomes] == ["refused"] * 100
    assert 8 <= len(estate.asked) <= 12
    assert outcomes[-1].why == "not tried after 8 failures: nobody is there"


DYING = """
import itertools, os, signal, sys
from pathlib import Path
from modelyard.importer.buckets import estate_of
from modelyard.importer.estate import Takeover, plan
from modelyard.importer.inspect import inspect_files
from modelyard.repository import ModelRepository
from modelyard.settings import Settings
from modelyard.store import Cache, LocalDisk, Store

def take(address, target, allowed):
    steps = itertools.count()

    def dying(original):
        def operation(self, key, *data, **options):
            if self.url.endswith(target) and next(steps) == allowed:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(self, key, *data, **options)
        return operation

    for name in ("create", "put", "get", "objects", "delete"):
        setattr(Store, name, dying(getattr(Store, name)))
    repository = ModelRepository(LocalDisk(target), cache=Cache(Path("unused")), inspect=inspect_files, user="dying")
    estate, address = estate_of(address)
    Takeover(repository, estate).run(plan(estate.list(address)))

for line in sys.stdin:
    address, target, allowed = line.rstrip().split("|")
    if not (child := os.fork()):
        take(address, target, int(allowed))
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def test_killed_anywhere_the_next_run_ends_complete(
    tmp_path: Path, open_repository: Callable[..., ModelRepository]
) -> None:
    address = str(builders.folder(tmp_path / "estate", {k: v for k, v in FILES.items() if k.startswith("good")}))
    codes, before = [], []
    with subprocess.Popen(
        [sys.executable, "-c", DYING], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as takers:
        assert takers.stdin
        assert takers.stdout
        for allowed in range(0, 200, 3):
            target = tmp_path / f"store-{allowed}"
            takers.stdin.write(f"{address}|{target}|{allowed}\n")
            takers.stdin.flush()
            codes.append(int(takers.stdout.readline()))
            repository = open_repository(LocalDisk(target), inspect=inspect_files)
            before.append(len(list(repository.storage.objects("versions"))))
            outcomes = take(repository, address)
            assert {outcome.state for outcome in outcomes.values()} <= {"imported", "present"}
            assert [repository.verify(repository.resolve(f"good:v{n}.0.0")) for n in (1, 2)] == [[], []]
            if codes[-1] == 0:
                break
        takers.stdin.close()
    assert codes[-1] == 0
    assert set(codes[:-1]) == {-9}
    assert set(before) == {0, 1, 2}


def test_one_version_by_its_folder(repository: ModelRepository, bucket: Store) -> None:
    estate, _ = estate_of(bucket.url)
    first = next(each for each in estate.list(bucket.url) if each.version == "2")
    with estate.open(first.address) as fetched:
        assert (fetched.name, fetched.version, fetched.lineage["source"]) == ("good", "2", first.pin)
        assert sorted(file.path for file in fetched.files) == ["model.safetensors", "more/vocab.txt"]
