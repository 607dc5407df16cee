"""Whether the system still gives this user the file watches that Envoy will ask for.

Envoy watches the replicas of each deployed version by an inotify instance of its own, of which Linux gives a user 128
unless told otherwise, and it aborts when it gets none: so this asks first. Other systems have no such limit.
"""

from __future__ import annotations

import ctypes
import os
import sys

from modelyard.errors import Unavailable

_LIMIT = "fs.inotify.max_user_instances"


def require(count: int) -> None:
    """Raises Unavailable, with the setting to raise, unless `count` more watches can be had."""
    if sys.platform != "linux" or count <= 0:
        return
    taken: list[int] = []
    try:
        while len(taken) < count:
            descriptor = _watch()
            if descriptor < 0:
                raise Unavailable(
                    f"the gateway needs {count} more file watches and the system gives {len(taken)}",
                    remedy=f"raise the limit, for example `sysctl {_LIMIT}=1024`",
                )
            taken.append(descriptor)
    finally:
        for descriptor in taken:
            os.close(descriptor)


def _watch() -> int:
    """A new inotify instance's file descriptor, or -1."""
    return int(ctypes.CDLL(None).inotify_init1(os.O_CLOEXEC))
