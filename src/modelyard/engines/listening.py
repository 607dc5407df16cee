"""Taking a port, with an error that a person can act on."""

from __future__ import annotations

import socket

from modelyard.errors import InvalidInput


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises InvalidInput when the address can't be taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).partition(" (while")[0].lower()
        raise InvalidInput(f"can't listen on {host}:{port}: {reason}", remedy="choose another port") from error
