"""JSON documents in a store: how they are written, and how it is said that one can't be read."""

from __future__ import annotations

import json
from typing import Any

from pydantic import ValidationError

from modelyard import wording
from modelyard.errors import InvalidInput

RESTORE = "restore the object from a backup or an older version of the bucket"


def problem(error: Exception) -> str:
    """What is wrong with a stored document, in one line."""
    return wording.problem(error) if isinstance(error, ValidationError) else str(error)


def to_json(data: Any, *, what: str) -> bytes:
    """`data` as a JSON document, for people to read. Raises InvalidInput naming `what` for what JSON can't hold."""
    try:
        return json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"{what} can't be written as JSON: {error}", remedy="use plain JSON values") from error
