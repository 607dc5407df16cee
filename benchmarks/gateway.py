"""What the gateway costs: an instant server asked through modelyard, through its limits, and through its peers.

The limits, a plain Envoy and nginx, forward everything to the server and do nothing else; the peers are LiteLLM's proxy
and Portkey's gateway. Whatever stands between runs on one core, the server and the load generator on the others.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from gateways import Place, Way, litellm, modelyard_gateway, nginx, plain_envoy, portkey, way
from instant import instant_server
from measure import Speed, in_turn, load, options, own_process, print_table, ratio
from open_loop import load_at

CONNECTIONS = (1, 32, 512)
AT_HALF_LOAD = 32
WARM_UP_S = 0.3
DIRECTLY, LIMIT, ROUTING, ALL = "directly", "plain Envoy", "modelyard, routing only", "modelyard, everything"
LITELLM, PORTKEY = "LiteLLM", "Portkey"
OURS, PEERS = (ROUTING, ALL), (LITELLM, PORTKEY)


@dataclass(frozen=True, slots=True)
class Run:
    """One measurement, and the processor time that each request took between client and server."""

    speed: Speed
    cpu_us: float


def main() -> None:
    given = _options().parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="modelyard-bench-")))
        first, others = cores()
        generator = stack.enter_context(own_process(others))
        server = stack.enter_context(instant_server(others))
        ways = {DIRECTLY: way(server)} | started(stack, given, Place(server, folder, first, given.workers))
        if given.memory:
            report_memory(generator, ways[ALL], given.requests)
            return
        for streamed in (False, True):
            for connections in given.connections:
                report(generator, ways, given, streamed=streamed, connections=connections)
            report_half_load(generator, ways, given, streamed=streamed)


def _options() -> argparse.ArgumentParser:
    parser = options(__doc__, rounds=5, seconds=0.5, requests=20_000)
    parser.add_argument("--workers", type=int, default=1, help="worker threads of each Envoy and nginx, on one core")
    parser.add_argument("--connections", type=int, nargs="+", default=CONNECTIONS)
    parser.add_argument("--litellm", type=Path, metavar="PYTHON", help="the interpreter of an environment with LiteLLM")
    parser.add_argument("--portkey", type=Path, metavar="FOLDER", help="the folder in which npm installed Portkey")
    parser.add_argument("--nginx", type=Path, metavar="PATH", help="nginx' binary")
    parser.add_argument("--memory", action="store_true", help="measure only how the gateway's memory grows")
    parser.add_argument("--requests", type=int, default=1_000_000, help="over so many")
    return parser


def cores() -> tuple[set[int], set[int]]:
    """The core for what is measured, and those for the server and the load; on a machine with one, none are set."""
    first, *others = sorted(os.sched_getaffinity(0))
    return ({first}, set(others)) if others else (set(), set())


def started(stack: ExitStack, given: argparse.Namespace, place: Place) -> dict[str, Way]:
    """The limits, ours, and the peers that were asked for."""
    ways = {LIMIT: stack.enter_context(plain_envoy(place))}
    if given.nginx:
        ways["nginx"] = stack.enter_context(nginx(given.nginx, place))
    ways[ROUTING] = stack.enter_context(modelyard_gateway(place, everything=False))
    ways[ALL] = stack.enter_context(modelyard_gateway(place, everything=True))
    if given.litellm and not given.memory:
        ways[LITELLM] = stack.enter_context(litellm(given.litellm, place))
    if given.portkey and not given.memory:
        ways[PORTKEY] = stack.enter_context(portkey(given.portkey, place))
    return ways


def asking(
    generator: ProcessPoolExecutor, way: Way, connections: int, seconds: float, *, streamed: bool
) -> Callable[[], Run]:
    """A measurement by the load generator."""
    request = way.streamed if streamed else way.plain

    def measure() -> Run:
        before = way.cpu_s()
        speed = generator.submit(load, way.port, [request], connections, seconds).result()
        return Run(speed, (way.cpu_s() - before) / speed.answers * 1e6)

    return measure


def report(
    generator: ProcessPoolExecutor,
    ways: Mapping[str, Way],
    given: argparse.Namespace,
    *,
    streamed: bool,
    connections: int,
) -> None:
    def measuring(seconds: float) -> dict[str, Callable[[], Run]]:
        return {name: asking(generator, each, connections, seconds, streamed=streamed) for name, each in ways.items()}

    in_turn(measuring(WARM_UP_S), 1)
    runs = in_turn(measuring(given.seconds), given.rounds)
    peers = [peer for peer in PEERS if peer in ways]
    rates = {name: [run.speed.per_second for run in each] for name, each in runs.items()}
    medians = {name: [run.speed.median_ms for run in each] for name, each in runs.items()}
    rows = []
    for name, each in runs.items():
        added = statistics.median(here - there for here, there in zip(medians[name], medians[DIRECTLY], strict=True))
        row = [name, f"{statistics.median(rates[name]):,.0f}", ratio(rates[name], rates[LIMIT])]
        row += [f"{statistics.median(medians[name]):.3f}", f"{added:.3f}"]
        row += [f"{statistics.median(run.cpu_us for run in each):.0f}"]
        row += [ratio(rates[name], rates[peer]) if name in OURS else "" for peer in peers]
        rows.append(row)
    head = ["", "requests/s", f"to {LIMIT}", "median ms", "added ms", "CPU us", *(f"to {peer}" for peer in peers)]
    print_table(f"Gateway, {connections} connections, {_kind(streamed)}", head, rows)


def report_half_load(
    generator: ProcessPoolExecutor, ways: Mapping[str, Way], given: argparse.Namespace, *, streamed: bool
) -> None:
    """Each of ours at half of the rate it reaches, and the plain Envoy at the same rate."""
    rows = []
    for name in OURS:
        full = in_turn({name: asking(generator, ways[name], AT_HALF_LOAD, given.seconds, streamed=streamed)}, 3)
        rate = statistics.median(run.speed.per_second for run in full[name]) / 2

        def measuring(who: str, rate: float = rate) -> Callable[[], Speed]:
            port, request = ways[who].port, ways[who].streamed if streamed else ways[who].plain
            return lambda: generator.submit(load_at, port, request, rate, AT_HALF_LOAD, given.seconds).result()

        runs = in_turn({who: measuring(who) for who in (name, LIMIT)}, given.rounds)
        p99 = {who: [speed.p99_ms for speed in each] for who, each in runs.items()}
        added = statistics.median(here - there for here, there in zip(p99[name], p99[LIMIT], strict=True))
        ours, theirs = (statistics.median(p99[who]) for who in (name, LIMIT))
        rows.append([name, f"{rate:,.0f}", f"{ours:.3f}", f"{theirs:.3f}", f"{added:.3f}"])
    head = ["", "requests/s", "p99 ms", f"p99 ms of {LIMIT}", "added ms"]
    print_table(f"Gateway, half load on {AT_HALF_LOAD} connections, {_kind(streamed)}", head, rows)


def report_memory(generator: ProcessPoolExecutor, way: Way, requests: int) -> None:
    """The gateway's memory after a tenth of the requests, and after all of them."""
    marks = []
    for goal in (requests // 10, requests - requests // 10):
        answered = 0
        while answered < goal:
            both = [way.plain, way.streamed]
            answered += generator.submit(load, way.port, both, AT_HALF_LOAD, 1.0).result().answers
        marks.append(way.memory())
    warm, end = marks
    print(
        f"Gateway, memory over {requests:,} requests: {warm / 2**20:.1f} MiB after a tenth of them, "
        f"{end / 2**20:.1f} MiB in the end: {(end / warm - 1) * 100:+.1f} %"
    )


def _kind(streamed: bool) -> str:
    return "streamed answers" if streamed else "whole answers"


if __name__ == "__main__":
    main()
