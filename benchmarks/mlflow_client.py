"""MLflow's own client, timed from inside: `python mlflow_client.py JSON` in the environment of `make engines`.

Prints JSON last. Only the client's calls count: neither the start of Python nor its imports.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import mlflow
from mlflow import MlflowClient

client = MlflowClient()


def push(folder: str) -> dict[str, Any]:
    """Log a folder as artifacts of a new run."""
    run = client.create_run("0")
    begin = time.perf_counter()
    client.log_artifacts(run.info.run_id, folder, "model")
    return {"seconds": time.perf_counter() - begin, "run": run.info.run_id}


def pull(run: str, destination: str) -> dict[str, Any]:
    begin = time.perf_counter()
    mlflow.artifacts.download_artifacts(run_id=run, artifact_path="model", dst_path=destination)
    return {"seconds": time.perf_counter() - begin}


def search(kind: str, query: str, rounds: int) -> dict[str, Any]:
    """Every page of what a filter finds, `rounds` times after one that does not count."""
    find: Callable[..., Any] = getattr(client, f"search_{kind}")
    seconds, found = [], 0
    for _ in range(rounds + 1):
        begin, found, token = time.perf_counter(), 0, None
        while True:
            page = find(filter_string=query or None, max_results=1000, page_token=token)
            found += len(page)
            token = page.token
            if not token:
                break
        seconds.append(time.perf_counter() - begin)
    return {"seconds": seconds[1:], "found": found}


def by_alias(name: str, alias: str, rounds: int) -> dict[str, Any]:
    """One version by its alias."""
    seconds = []
    for _ in range(rounds + 1):
        begin = time.perf_counter()
        client.get_model_version_by_alias(name, alias)
        seconds.append(time.perf_counter() - begin)
    return {"seconds": seconds[1:]}


CALLS: dict[str, Callable[..., dict[str, Any]]] = {"push": push, "pull": pull, "search": search, "by_alias": by_alias}

if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    print(json.dumps(CALLS[asked.pop("call")](**asked)))
