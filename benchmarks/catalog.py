"""A catalog of many models: resolving a tag, names, a filtered search, the first sync, on a folder and on an S3 server.

The bucket is written directly, as registering leaves it: manifests, journals of the catalog, marks of the last changes.
With `--mlflow PYTHON` (an environment that holds MLflow) the same models, versions, metrics and parameters are put into
MLflow's registry on SQLite, and it is asked the same question.
"""

from __future__ import annotations

import json
import random
import shutil
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
from pathlib import Path
from typing import Any

from measure import options, own_process, print_table
from modelyard.refs import Version
from modelyard.repository import changes
from modelyard.repository.index import Index
from modelyard.repository.manifest import Artifact, ModelInfo, ModelVersion, content_digest
from modelyard.store import S3, Entry, Journal, LocalDisk, Store
from modelyard.store.documents import to_json
from transfer import BUCKET, seaweedfs

WHERE = ("task=text-classification", "metrics.f1>=0.9")
TAG = "stable"
PEER = Path(__file__).with_name("mlflow_peer.py")
_TASKS = ("text-classification", "text-generation", "feature-extraction", "image-classification", "fill-mask")
_MARKED = 1000  # a whole page of marks, as in a bucket where much happens


@dataclass(frozen=True, slots=True)
class Place:
    """A store that another process can open too."""

    kind: str
    where: str
    endpoint: str | None = None

    def open(self) -> Store:
        return S3(BUCKET, self.where, endpoint_url=self.endpoint) if self.endpoint else LocalDisk(self.where)


@dataclass(frozen=True, slots=True)
class Figures:
    """Times in milliseconds, the first sync in seconds; how many requests a resolution takes."""

    first_sync_s: float
    megabytes: float
    resolve: float
    requests: int
    names: float
    search: float
    found: int
    fresh: float
    command: float


def main() -> None:
    parser = options(__doc__, rounds=5)
    parser.add_argument("--models", type=int, default=10_000)
    parser.add_argument("--versions", type=int, default=10, help="of each model")
    parser.add_argument("--stores", nargs="+", choices=("disk", "s3"), default=["disk", "s3"])
    parser.add_argument("--mlflow", metavar="PYTHON", help="the interpreter of an environment with MLflow")
    given = parser.parse_args()
    figures = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="modelyard-bench-")))
        for kind in given.stores:
            place = Place("disk", str(folder / "store"))
            if kind == "s3":
                place = Place("s3", uuid.uuid4().hex, stack.enter_context(seaweedfs(folder)))
            began = time.perf_counter()
            fill(place.open(), given.models, given.versions)
            print(f"{kind}: filled in {time.perf_counter() - began:.0f} s", file=sys.stderr)
            figures[kind] = measure(place, folder / f"index-{kind}", given.models, given.rounds)
    report(figures, given.models, given.versions)
    if given.mlflow:
        ask_mlflow(given.mlflow, given.models, given.versions)


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
    chance = random.Random(number)  # noqa: S311 - nothing secret
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


def measure(place: Place, folder: Path, models: int, rounds: int) -> Figures:
    store = place.open()
    index = Index(store, folder)
    began = time.perf_counter()
    index.refresh()
    first_sync = time.perf_counter() - began
    megabytes = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    resolved, requests = resolving(store, index, random.Random(1).sample(range(models), min(models, 200)))  # noqa: S311
    with own_process() as pool:
        fresh = [pool.submit(ask, place, folder).result() for _ in range(1)]
    for _ in range(rounds - 1):
        with own_process() as pool:
            fresh.append(pool.submit(ask, place, folder).result())
    found = len(index.search(WHERE))
    return Figures(
        first_sync_s=first_sync,
        megabytes=megabytes,
        resolve=resolved,
        requests=requests,
        names=median_ms(index.names, rounds),
        search=median_ms(lambda: index.search(WHERE), rounds),
        found=found,
        fresh=statistics.median(fresh),
        command=0,
    )


def resolving(store: Store, index: Index, numbers: list[int]) -> tuple[float, int]:
    """The median time of resolving a tag, and its requests."""
    names = [next(model_versions(number, 1)).name for number in numbers]

    def resolve(name: str) -> None:
        entry = Journal(store, f"catalog/{name}").read()
        assert entry
        version = Version.parse(entry.state["tags"][TAG].partition("@")[0])
        assert index.manifest(name, version, entry)

    times = []
    for name in names:
        began = time.perf_counter()
        resolve(name)
        times.append((time.perf_counter() - began) * 1000)
    return statistics.median(times), count_requests(lambda: resolve(names[0]))


def count_requests(work: Callable[[], None]) -> int:
    """How many operations of the store it takes."""
    count, originals = 0, {name: getattr(Store, name) for name in ("get", "objects", "stream", "list_directories")}

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


def ask(place: Place, folder: Path) -> float:
    """In a process of its own: from opening the index to the answer, milliseconds."""
    store = place.open()
    began = time.perf_counter()
    Index(store, folder).search(WHERE)
    return (time.perf_counter() - began) * 1000


def median_ms(work: Callable[[], object], rounds: int) -> float:
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        times.append((time.perf_counter() - began) * 1000)
    return statistics.median(times)


def report(figures: dict[str, Figures], models: int, versions: int) -> None:
    print(json.dumps({kind: asdict(each) for kind, each in figures.items()}, indent=1))


if __name__ == "__main__":
    main()
