"""What transfer is measured against: boto3's transfer manager, MLflow with proxied artifacts, a plain copy."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from boto3.s3.transfer import TransferConfig, create_transfer_manager

import mlflow_peer
from seaweedfs import BUCKET, REGION, s3_client

MIB = 1024 * 1024

# The best of those tried (4 to 20 requests of 8 to 64 MiB) on two cores that the server shares.
_BEST = {"max_concurrency": 4, "multipart_chunksize": 64 * MIB, "multipart_threshold": 64 * MIB}

_MLFLOW_CLIENT = """
import json, os, sys, time
import mlflow

url, model, target = sys.argv[1:]
mlflow.set_tracking_uri(url)
began, cpu = time.perf_counter(), sum(os.times()[:4])
with mlflow.start_run() as run:
    mlflow.log_artifacts(model, "model")
pushed, pushed_cpu = time.perf_counter(), sum(os.times()[:4])
mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path="model", dst_path=target)
pulled, pulled_cpu = time.perf_counter(), sum(os.times()[:4])
print(json.dumps([pushed - began, pulled - pushed, pushed_cpu - cpu, pulled_cpu - pushed_cpu]))
"""


@dataclass(frozen=True, slots=True)
class Times:
    """In seconds: until it is done, and of the client's processor."""

    push: float
    pull: float
    push_cpu: float
    pull_cpu: float


def timed(push: Callable[[], object], pull: Callable[[], object]) -> Times:
    marks = [_now()]
    for action in (push, pull):
        action()
        marks.append(_now())
    (began, cpu), (pushed, pushed_cpu), (pulled, pulled_cpu) = marks
    return Times(pushed - began, pulled - pushed, pushed_cpu - cpu, pulled_cpu - pushed_cpu)


def with_boto3(url: str, model: Path) -> Times:
    """All files at once."""
    files, prefix, client = sorted(path.name for path in model.iterdir()), uuid.uuid4().hex, s3_client(url)
    with tempfile.TemporaryDirectory(dir=model.parent) as folder:

        def push() -> None:
            with create_transfer_manager(client, TransferConfig(**_BEST)) as manager:
                for sent in [manager.upload(str(model / name), BUCKET, f"{prefix}/{name}") for name in files]:
                    sent.result()

        def pull() -> None:
            with create_transfer_manager(client, TransferConfig(**_BEST)) as manager:
                got = [manager.download(BUCKET, f"{prefix}/{name}", str(Path(folder) / name)) for name in files]
                for each in got:
                    each.result()

        return timed(push, pull)


def with_copy(model: Path) -> Times:
    """From folder to folder, as the kernel copies."""
    with tempfile.TemporaryDirectory(dir=model.parent) as folder:
        there, back = Path(folder) / "there", Path(folder) / "back"
        return timed(lambda: shutil.copytree(model, there), lambda: shutil.copytree(there, back))


@contextmanager
def mlflow_server(python: Path, url: str, folder: Path) -> Iterator[Callable[[Path], Times]]:
    """MLflow's server, which passes artifacts on to the same bucket (its default), and how to measure its client."""
    artifacts = f"s3://{BUCKET}/{uuid.uuid4().hex}"
    environment = {"MLFLOW_S3_ENDPOINT_URL": url, "AWS_DEFAULT_REGION": REGION}
    with mlflow_peer.mlflow_server(
        folder / "mlflow", python=python, artifacts=artifacts, environment=environment
    ) as peer:

        def measure(model: Path) -> Times:
            with tempfile.TemporaryDirectory(dir=folder) as target:
                client = [str(python), "-c", _MLFLOW_CLIENT, peer.url, str(model), target]
                quiet = mlflow_peer.quiet_environment()
                done = subprocess.run(client, env=quiet, check=True, stdout=subprocess.PIPE, text=True)
                return Times(*json.loads(done.stdout.splitlines()[-1]))

        yield measure


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()
