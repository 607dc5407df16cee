"""Embeddings: a real model behind `modelyard serve`, asked in bulk and by 64 clients at once, sentence by sentence.

The limit is the fastest engine called in a process of its own (torch or ONNX Runtime, at its best batch size); the
peers are what people would write instead. Sentences are real ones, short and mixed with paragraphs. Before anything is
measured, every server's vectors are compared with those of sentence-transformers.
"""

from __future__ import annotations

import os
import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import engines_in_process
import texts as real_texts
from embedding_servers import EXACT, NAME, PLAIN, Server, model_server, ours, peers
from measure import in_turn, load, options, own_process, print_table, ratio

CLIENTS, BULK, POOL = 64, 128, 256
WARM_UP_S = 1.0
LEAST_COSINE = 0.9999  # to sentence-transformers, of every server that does not compute in fewer bits
BULKS, SINGLES = f"{BULK} a request", f"{CLIENTS} clients"
Speeds = Mapping[str, Sequence[float]]


def main() -> None:
    parser = options(__doc__, rounds=5, seconds=3)
    parser.add_argument("--peers", type=Path, nargs="+", default=[], metavar="FOLDER", help="environments of the peers")
    parser.add_argument("--kind", choices=("short", "mixed"), nargs="+", default=["short", "mixed"])
    parser.add_argument("--cores", type=int, help="so many for each server and for the limit, not all of them")
    given = parser.parse_args()
    os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    usable = sorted(os.sched_getaffinity(0))
    mine = set(usable[: given.cores])
    with ExitStack() as stack:
        generator = stack.enter_context(own_process(set(usable) - mine or mine))
        limit = stack.enter_context(own_process(mine))
        started = {name: stack.enter_context(model_server(serving, mine)) for name, serving in ours().items()}
        started |= {name: stack.enter_context(peer) for name, peer in peers(given.peers, mine).items()}
        speeds: dict[str, Speeds] = {}
        for kind in given.kind:
            chosen = getattr(real_texts, kind)(POOL)
            compare(started, limit, chosen)
            speeds[kind] = in_turn(_ways(started, generator, limit, chosen, given.seconds), given.rounds)
            report(kind, speeds[kind])
        report_precisions({name: started[name] for name in ours()}, limit, speeds)


def compare(servers: Mapping[str, Server], limit: ProcessPoolExecutor, chosen: Sequence[str]) -> None:
    """Raises RuntimeError for a server whose vectors are not the model's, asked in bulk or one by one."""
    exact = limit.submit(engines_in_process.vectors, "torch", chosen).result()
    for name, server in servers.items():
        bulk, few = _vectors(server, chosen), chosen[:8]
        single = np.concatenate([server.vectors([text]) for text in few])
        least = min(float((found * exact[: len(found)]).sum(axis=1).min()) for found in (bulk, single))
        if least < LEAST_COSINE and (name in EXACT or not name.startswith(PLAIN)):
            raise RuntimeError(f"{name}'s vectors are not those of sentence-transformers: cosine {least:.6f}")


def _ways(
    servers: Mapping[str, Server],
    generator: ProcessPoolExecutor,
    limit: ProcessPoolExecutor,
    chosen: Sequence[str],
    seconds: float,
) -> dict[str, Callable[[], float]]:
    """Everybody gets the same texts, in the same bulks."""
    bulks = _bulks(chosen)

    def asking(server: Server, parts: Sequence[Sequence[str]], clients: int) -> float:
        requests, each = [server.request(part) for part in parts], len(parts[0])
        job = partial(load, server.port, requests, clients, seconds, server.shortest_answer(each))
        return generator.submit(job).result().per_second * each

    def inside(engine: str, batch: int) -> float:
        return limit.submit(engines_in_process.speed, engine, batch, bulks, seconds).result()

    ways: dict[str, Callable[[], float]] = {}
    for engine in ("torch", "onnx"):
        limit.submit(engines_in_process.speed, engine, 8, [chosen[:8]], 0.1).result()
        for batch in engines_in_process.BATCHES:
            ways[f"in-process {engine}, batch {batch}"] = partial(inside, engine, batch)
    for name, server in servers.items():
        singles = [[text] for text in chosen]
        generator.submit(load, server.port, [server.request(text) for text in singles], CLIENTS, WARM_UP_S).result()
        ways[f"{name}, {BULKS}"] = partial(asking, server, bulks, 1)
        ways[f"{name}, {SINGLES}"] = partial(asking, server, singles, CLIENTS)
    return ways


def _bulks(chosen: Sequence[str]) -> list[list[str]]:
    """Of alike lengths, so that it does not matter how many of them a measurement gets to; in no order within."""
    by_length, count = sorted(chosen, key=len), len(chosen) // BULK
    return [random.Random(0).sample(part, BULK) for part in (by_length[at::count] for at in range(count))]


def report(kind: str, speeds: Speeds) -> None:
    """Ratios are to the fastest engine, and to the fastest peer asked in the same way, of each round."""
    limit = _fastest(speeds, lambda name: name.startswith("in-process"))
    rows = []
    for name, runs in speeds.items():
        way = BULKS if name.endswith(BULKS) else SINGLES
        row = [name, f"{statistics.median(runs):.0f}", ratio(runs, limit)]
        best = _fastest(speeds, lambda other, way=way: other.endswith(way) and not other.startswith(PLAIN))  # type: ignore[misc]
        rows.append([*row, ratio(runs, best) if best and name.startswith(PLAIN) else ""])
    print_table(f"Embeddings: {NAME}, {kind} texts", ["", "texts/s", "to the limit", "to the best peer"], rows)


def _fastest(speeds: Speeds, chosen: Callable[[str], bool]) -> list[float]:
    """Of each round; nothing if there is none to choose from."""
    return [max(runs) for runs in zip(*(runs for name, runs in speeds.items() if chosen(name)), strict=True)]


def report_precisions(servers: Mapping[str, Server], limit: ProcessPoolExecutor, speeds: Mapping[str, Speeds]) -> None:
    """How near the vectors are to those of sentence-transformers, whether a search finds the same, and how much faster.

    Texts and questions are both computed in the precision that is measured.
    """
    passages, asked = real_texts.mixed(1000), [question for question, _ in real_texts.questions(100)]
    exact = [limit.submit(engines_in_process.vectors, "torch", each).result() for each in (passages, asked)]
    ways = [(kind, way) for kind in speeds for way in (BULKS, SINGLES)]
    rows = []
    for name, server in servers.items():
        found = [_vectors(server, each) for each in (passages, asked)]
        cosines = (found[0] * exact[0]).sum(axis=1)
        row = [name, f"{cosines.min():.6f}", f"{cosines.mean():.6f}", f"{_recall(found, exact):.3f}"]
        gains = [ratio(speeds[kind][f"{name}, {way}"], speeds[kind][f"{PLAIN}, {way}"]) for kind, way in ways]
        rows.append(row + gains)
    head = ["", "least cosine", "mean", "recall@10 of fp32's", *(f"{kind}, {way}" for kind, way in ways)]
    print_table("Precisions: the same vectors? And speed to fp32", head, rows)


def _recall(found: Sequence[Any], exact: Sequence[Any]) -> float:
    """Of the 10 passages nearest to a question in fp32, the share that is among the 10 nearest found."""
    best = [np.argsort(-(asked @ passages.T), axis=1)[:, :10] for passages, asked in (found, exact)]
    return float(np.mean([len(np.intersect1d(one, other)) / 10 for one, other in zip(*best, strict=True)]))


def _vectors(server: Server, asked: Sequence[str]) -> Any:
    return np.concatenate([server.vectors(asked[at : at + BULK]) for at in range(0, len(asked), BULK)])


if __name__ == "__main__":
    main()
