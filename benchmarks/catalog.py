"""A catalog of many models: resolving a tag, names, a filtered search, the first sync, on a folder and on an S3 server.

The bucket is written directly, as registering leaves it: manifests, journals of the catalog, a page of change marks.
With `--mlflow PYTHON` MLflow's registry (its server on SQLite, its client) is asked the same of as many versions.
"""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from measure import options, own_process, print_table
from mlflow_peer import Peer, mlflow_server
from modelyard.refs import Version
from modelyard.repository import changes
from modelyard.repository.manifest import Artifact, ModelInfo, ModelVersion, content_digest
from modelyard.settings import load_settings
from modelyard.store import Entry, LocalDisk, Store, open_store
from modelyard.store.documents import to_json
from modelyard.yard import Yard
from seaweedfs import BUCKET, seaweedfs

WHERE = ("task=text-classification", "metrics.f1>=0.9")
TAG = "stable"
RESOLVED = 200  # models

_TASKS = ("text-classification", "text-generation", "feature-extraction", "image-classification", "fill-mask")
_MARKED = 1000  # a whole page of marks, as in a bucket where much happens


@dataclass(frozen=True, slots=True)
class Place:
    """A store that other processes can open too, and where its index is kept."""

    store: str
    cache: str
    endpoint: str | None = None

    def yard(self) -> Yard:
        settings = load_settings(store=self.store, cache=self.cache, s3_endpoint_url=self.endpoint)
        return Yard(settings, open_store(self.store, endpoint_url=self.endpoint))

    @property
    def environment(self) -> dict[str, str]:
        endpoint = {"MODELYARD_S3_ENDPOINT_URL": self.endpoint} if self.endpoint else {}
        return os.environ | {"MODELYARD_STORE": self.store, "MODELYARD_CACHE": self.cache} | endpoint


@dataclass(frozen=True, slots=True)
class Figures:
    """What one store gave; times in milliseconds but for the first sync's, in seconds."""

    first_sync_s: float
    megabytes: float
    resolve: float
    requests: int
    names: float
    search: float
    search_cpu: float
    fresh: float
    command: float
    found: int


def main() -> None:
    parser = options(__doc__, rounds=5, models=200)
    parser.add_argument("--models", type=int, default=10_000)
    parser.add_argument("--versions", type=int, default=10, help="of each model")
    parser.add_argument("--stores", nargs="+", choices=("disk", "s3"), default=["disk", "s3"])
    parser.add_argument("--mlflow", type=Path, metavar="PYTHON", help="the interpreter of an environment with MLflow")
    given = parser.parse_args()
    figures = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="modelyard-bench-")))
        for kind in given.stores:
            place = Place(LocalDisk(folder / "store").url, str(folder / kind))
            if kind == "s3":
                endpoint = stack.enter_context(seaweedfs(folder))
                place = Place(f"s3://{BUCKET}/{uuid.uuid4().hex}", str(folder / kind), endpoint)
            began = time.perf_counter()
            fill(place.yard().store, given.models, given.versions)
            print(f"{kind}: filled in {time.perf_counter() - began:.0f} s", file=sys.stderr)
            figures[kind] = measure(place, given.models, given.rounds)
        report(figures, given.models, given.versions)
        if given.mlflow:
            with mlflow_server(folder / "mlflow", python=given.mlflow) as peer:
                report_peer(peer, given.models, given.versions, given.rounds)


def fill(store: Store, models: int, versions: int) -> None:
    """The whole catalog, many objects at once."""
    marked = max(1, _MARKED // versions)
    with ThreadPoolExecutor(32) as pool:
        for _ in pool.map(lambda number: put_model(store, number, versions, marked=number < marked), range(models)):
            continue


def put_model(store: Store, number: int, versions: int, *, marked: bool) -> None:
    """A model: its manifests, and its journal, in which the middle version is tagged."""
    made = list(model_versions(number, versions))
    for each in made:
        key = f"versions/{each.name}/{each.version}.json"
        if marked:
            changes.mark(store, key)
        store.put(key, each.to_json())
    named = {"name": made[0].name, "tags": {}}
    middle = made[len(made) // 2]
    tagged = named | {"tags": {TAG: f"{middle.version}@{middle.digest}"}}
    journal = f"catalog/{made[0].name}"
    for entry, state in ((1, named), (2, tagged)):
        key = f"{journal}/{10**12 - 1 - entry:012d}.json"
        written = Entry(entry, uuid.uuid4().hex, datetime.now(UTC).isoformat(), "bench", "bench", state)
        store.put(key, to_json(asdict(written), what=key))


def model_versions(number: int, versions: int) -> Iterator[ModelVersion]:
    """The versions of the model with this number; always the same ones."""
    chance = random.Random(number)
    name, task = f"team-{number % 50}/model-{number:05d}", chance.choice(_TASKS)
    for minor in range(versions):
        version = Version(1, minor, 0)
        attempt = f"20261124T090000-{number:012x}{minor:04x}"
        sha256 = f"{chance.getrandbits(256):064x}"
        size = chance.randrange(10**6, 10**9)
        files = (
            Artifact("model.safetensors", f"models/{name}/{version}/{attempt}/model.safetensors", size, sha256),
            Artifact("config.json", f"models/{name}/{version}/{attempt}/config.json", 700, sha256[::-1]),
        )
        metrics = {"f1": round(chance.uniform(0.5, 0.95), 4), "accuracy": round(chance.uniform(0.5, 1), 4)}
        parameters = {"epochs": chance.randrange(1, 20), "learning_rate": chance.choice((1e-5, 3e-5, 1e-4))}
        yield ModelVersion(
            id=f"{number:012x}{minor:04x}",
            name=name,
            version=version,
            digest=content_digest(files),
            files=files,
            created_at=datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=number * versions + minor),
            created_by="bench",
            model=ModelInfo(task, "transformers", "transformers", "BertModel", size // 4, "F32", license="mit"),
            metadata={"metrics": metrics, "params": parameters},
        )


def measure(place: Place, models: int, rounds: int) -> Figures:
    yard = place.yard()
    index, repository = yard.index, yard.repository
    began = time.perf_counter()
    index.refresh()
    first_sync = time.perf_counter() - began
    chosen = random.Random(1).sample(range(models), min(models, RESOLVED))
    refs = [f"{next(model_versions(number, 1)).name}:{TAG}" for number in chosen]
    return Figures(
        first_sync_s=first_sync,
        megabytes=sum(path.stat().st_size for path in Path(place.cache).rglob("*.sqlite*")) / 1e6,
        resolve=statistics.median(milliseconds(partial(repository.resolve, ref)) for ref in refs),
        requests=count_requests(yard.store, partial(repository.resolve, refs[0])),
        names=statistics.median(milliseconds(repository.list_models) for _ in range(rounds)),
        search=statistics.median(milliseconds(partial(index.search, WHERE)) for _ in range(rounds)),
        search_cpu=statistics.median(processor_milliseconds(partial(index.search, WHERE)) for _ in range(rounds)),
        fresh=statistics.median(in_fresh_process(place) for _ in range(rounds)),
        command=statistics.median(milliseconds(lambda: run_command(place)) for _ in range(rounds)),
        found=len(index.search(WHERE)),
    )


def count_requests(store: Store, work: Callable[[], object]) -> int:
    """How many operations of the store it takes; an ordered store gives names by listing objects."""
    operations = ("get", "objects") if store.ordered else ("get", "names", "objects", "list_directories")
    count, originals = 0, {name: getattr(Store, name) for name in operations}

    def counting(original: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any) -> Any:
            nonlocal count
            count += 1
            return original(*arguments)

        return counted

    for name, original in originals.items():
        setattr(Store, name, counting(original))
    try:
        work()
    finally:
        for name, original in originals.items():
            setattr(Store, name, original)
    return count


def in_fresh_process(place: Place) -> float:
    with own_process() as pool:
        return pool.submit(ask, place).result()


def ask(place: Place) -> float:
    """In a process of its own: from opening the store and the index to the answer."""
    yard = place.yard()
    return milliseconds(lambda: yard.index.search(WHERE))


def run_command(place: Place) -> None:
    """The whole of `modelyard ls`, with Python's start and all imports."""
    command = [sys.executable, "-m", "modelyard", "ls", *(each for where in WHERE for each in ("--where", where))]
    subprocess.run(command, env=place.environment, check=True, stdout=subprocess.DEVNULL)


def milliseconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1000


def processor_milliseconds(work: Callable[[], object]) -> float:
    """What it takes of the processor, whoever else uses it."""
    began = time.process_time()
    work()
    return (time.process_time() - began) * 1000


def report(figures: dict[str, Figures], models: int, versions: int) -> None:
    rows: dict[str, Callable[[Figures], str]] = {
        "first sync, s": lambda f: f"{f.first_sync_s:.0f}",
        "index, MB": lambda f: f"{f.megabytes:.0f}",
        f"resolve a tag, ms (median of {RESOLVED})": lambda f: f"{f.resolve:.1f}",
        "requests of it": lambda f: str(f.requests),
        "all names, ms": lambda f: f"{f.names:.0f}",
        "search, ms": lambda f: f"{f.search:.0f}",
        "  of it processor time, ms": lambda f: f"{f.search_cpu:.0f}",
        "search in a fresh process, ms": lambda f: f"{f.fresh:.0f}",
        "the whole command, ms": lambda f: f"{f.command:.0f}",
        "versions found": lambda f: str(f.found),
    }
    title = f"Catalog: {models:,} models, {versions} versions each; searched for {' and '.join(WHERE)}"
    table = [[name, *(cell(each) for each in figures.values())] for name, cell in rows.items()]
    print_table(title, ["", *figures], table)


def report_peer(peer: Peer, models: int, versions: int, rounds: int) -> None:
    """MLflow compares tags as text alone, for equality: that f1 is at least 0.9 is a tag of its own there."""
    made = {
        (number, minor): {"task": str(each.model.task), "high": str(each.metadata["metrics"]["f1"] >= 0.9)}
        for number in range(models)
        for minor, each in enumerate(model_versions(number, versions))
    }
    peer.fill(models, versions, lambda number, minor: made[number, minor])
    query = "tag.task = 'text-classification' AND tag.high = 'True'"
    found = peer.search("model_versions", query, rounds=rounds)
    rows = [
        ["resolve an alias, ms", f"{statistics.median(peer.by_alias('model-00000')) * 1000:.1f}"],
        ["search, ms", f"{statistics.median(found.seconds) * 1000:.0f}"],
        ["versions found", str(found.found)],
    ]
    print_table("The same in MLflow", ["", "MLflow"], rows)


if __name__ == "__main__":
    main()
