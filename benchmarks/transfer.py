"""Push and pull of a version: modelyard, which hashes and verifies, on a real S3 server (SeaweedFS) and in a folder.

Beside it, on the same server: boto3 with its best settings and without checksums; with --mlflow, MLflow
with proxied artifacts. In a folder: a plain copy. None of them verifies anything.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measure import in_turn, options, print_table, ratio
from modelyard.importer.inspect import inspect_files
from modelyard.repository import ModelRepository
from modelyard.store import S3, Cache, LocalDisk, Store
from peers import MIB, Times, mlflow_server, timed, with_boto3, with_copy
from seaweedfs import BUCKET, seaweedfs

LARGE, SMALL, SMALL_SIZE = 4, 200, 16 * 1024

_REGISTER = """
import sys
from pathlib import Path
from modelyard.importer.inspect import inspect_files
from modelyard.repository import ModelRepository
from modelyard.store import S3, Cache

bucket, prefix, url, model = sys.argv[1:]
store = S3(bucket, prefix, endpoint_url=url)
repository = ModelRepository(store, cache=Cache(Path("unused")), inspect=inspect_files, user="bench")
repository.register_model("model", "v1.0.0", model)
print(next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line))
"""


@dataclass(frozen=True, slots=True)
class Traffic:
    """What passed between a process and its store."""

    requests: int
    bytes: int


class Watched(Store):
    """A store that counts; `inner` does the work."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner._backend, inner.url, ordered=inner.ordered)
        self.reset()

    def reset(self) -> None:
        self._requests = self._bytes = 0

    @property
    def traffic(self) -> Traffic:
        return Traffic(self._requests, self._bytes)

    def put(self, key: str, data: bytes | Iterable[bytes], **options: Any) -> None:
        self._requests += 1
        super().put(key, self._one(data) if isinstance(data, bytes) else self._passing(data), **options)

    def get(self, key: str) -> bytes:
        self._requests += 1
        return self._one(super().get(key))

    def read(self, key: str, start: int, length: int, *, size: int) -> Iterator[Any]:
        self._requests += 1
        yield from self._passing(super().read(key, start, length, size=size))

    def _one(self, data: bytes) -> bytes:
        self._bytes += len(data)
        return data

    def _passing(self, data: Iterable[Any]) -> Iterator[Any]:
        for chunk in data:
            self._bytes += len(chunk)
            yield chunk


def main() -> None:
    parser = options(__doc__, rounds=3, mebibytes=32)
    parser.add_argument("--mebibytes", type=int, default=480, help=f"the size of each of the {LARGE} large files")
    parser.add_argument("--mlflow", type=Path, metavar="PYTHON", help="an interpreter that has mlflow and boto3")
    parser.add_argument(
        "--memory", type=int, default=0, metavar="GIB", help="push a file of that size; print the memory"
    )
    given = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="modelyard-bench-")))
        url = stack.enter_context(seaweedfs(folder))
        model = folder / "model"
        write_model(model, given.mebibytes * MIB)
        ways: dict[str, Callable[[], Times]] = {"boto3": lambda: with_boto3(url, model)}
        if given.mlflow:
            mlflow = stack.enter_context(mlflow_server(given.mlflow, url, folder))
            ways["MLflow"] = lambda: mlflow(model)
        ways["modelyard"] = lambda: with_modelyard(bucket(url), model)
        report("on SeaweedFS", in_turn(ways, given.rounds), model)
        ways = {"plain copy": lambda: with_copy(model), "modelyard": lambda: in_a_folder(model)}
        report("in a folder", in_turn(ways, given.rounds), model)
        report_traffic(Watched(bucket(url)), model)
        if given.memory:
            report_memory(url, folder, given.memory)


def write_model(folder: Path, large: int) -> None:
    """Weights as safetensors, and small files beside them."""
    folder.mkdir()
    for number in range(LARGE):
        with (folder / f"weights-{number}.safetensors").open("wb") as weights:
            weights.write(header(large))
            for _ in range(large // MIB):
                weights.write(os.urandom(MIB))
    for number in range(SMALL):
        (folder / f"part-{number}.txt").write_bytes(os.urandom(SMALL_SIZE))


def header(size: int) -> bytes:
    """The beginning of a safetensors file with so many bytes of weights."""
    text = json.dumps({"weights": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    return len(text).to_bytes(8, "little") + text


def bucket(url: str) -> Store:
    """An empty store."""
    return S3(BUCKET, uuid.uuid4().hex, endpoint_url=url)


def repository_of(store: Store, cache: Path) -> ModelRepository:
    return ModelRepository(store, cache=Cache(cache), inspect=inspect_files, user="bench")


def with_modelyard(store: Store, model: Path) -> Times:
    """Registered in an empty repository, fetched into an empty cache."""
    with tempfile.TemporaryDirectory(dir=model.parent) as cache:
        repository = repository_of(store, Path(cache))
        return timed(
            lambda: repository.register_model("model", "v1.0.0", model),
            lambda: repository.get_model("model", "v1.0.0"),
        )


def in_a_folder(model: Path) -> Times:
    with tempfile.TemporaryDirectory(dir=model.parent) as folder:
        return with_modelyard(LocalDisk(folder), model)


def report(where: str, times: dict[str, list[Times]], model: Path) -> None:
    size = sum(path.stat().st_size for path in model.iterdir())
    peer, rows = next(iter(times.values())), []
    for name, runs in times.items():
        push = _cells([run.push for run in runs], [run.push for run in peer], size)
        pull = _cells([run.pull for run in runs], [run.pull for run in peer], size)
        cpu = [statistics.median(getattr(run, each) for run in runs) * 1e9 / size for each in ("push_cpu", "pull_cpu")]
        rows.append([name, *push, *pull, *(f"{seconds:.2f}" for seconds in cpu)])
    title = f"Transfer {where}: {size / 1e6:,.0f} MB in {LARGE + SMALL} files; ratios to {next(iter(times))}"
    head = ["", "push MB/s", "ratio", "pull MB/s", "ratio", "push CPU s/GB", "pull CPU s/GB"]
    print_table(title, head, rows)


def _cells(seconds: list[float], peer: list[float], size: int) -> list[str]:
    """The median rate, and the ratio of the rates."""
    return [f"{size / statistics.median(seconds) / 1e6:.0f}", ratio(peer, seconds) if seconds != peer else "1"]


def report_traffic(store: Watched, model: Path) -> None:
    """A second pull, and a second version that differs in one small file."""
    with tempfile.TemporaryDirectory(dir=model.parent) as folder:
        repository = repository_of(store, Path(folder))
        version = repository.register_model("model", "v1.0.0", model)
        repository.fetch(version)
        store.reset()
        began = time.perf_counter()
        repository.fetch(version)
        took, again = time.perf_counter() - began, store.traffic
        print(f"second pull of {version.size / 2**30:.2f} GiB: {took * 1000:.1f} ms, {again.bytes} bytes moved")
        (model / "part-0.txt").write_bytes(os.urandom(SMALL_SIZE))
        store.reset()
        repository.register_model("model", "v1.1.0", model)
        print(f"next version, one file of {SMALL_SIZE:,} bytes changed: {store.traffic.bytes:,} bytes moved\n")


def report_memory(url: str, folder: Path, gibibytes: int) -> None:
    """The largest resident size of a fresh process that registers one large file of zeros."""
    size, model, prefix = gibibytes * 2**30, folder / "large", uuid.uuid4().hex
    model.mkdir()
    with (model / "weights.safetensors").open("wb") as weights:
        weights.write(header(size))
        weights.truncate(len(header(size)) + size)
    command = [sys.executable, "-c", _REGISTER, BUCKET, prefix, url, str(model)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    print(f"registering a file of {gibibytes} GiB: at most {int(done.stdout) / 1024:.0f} MiB of memory\n")


if __name__ == "__main__":
    main()
