"""Ports for the servers that tests start.

They lie below the range from which the system takes outgoing connections' ports, so that none is taken before its
server starts; each is given once, and each of several test processes has a part of its own.
"""

from __future__ import annotations

import os
import re
import socket
from functools import cache
from random import shuffle

_ALL = range(10_000, 20_000)
_PROCESSES = 8  # at most


def free_port() -> int:
    """A port of 127.0.0.1 on which nothing listens."""
    while True:
        port = _untried().pop()
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


@cache
def _untried() -> list[int]:
    worker = re.sub(r"\D", "", os.environ.get("PYTEST_XDIST_WORKER", "")) or "0"
    own = list(_ALL[int(worker) % _PROCESSES :: _PROCESSES])
    shuffle(own)
    return own
