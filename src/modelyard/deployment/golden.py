"""Comparing an answer with the one that was expected. Pure."""

from __future__ import annotations

import math
from typing import Any


def difference(expect: Any, found: Any, tolerance: float, place: str = "the answer") -> str:
    """Where the two first differ, in words; empty when all that is expected is there."""
    if isinstance(expect, dict) and isinstance(found, dict):
        missing = next((key for key in expect if key not in found), None)
        if missing is not None:
            return f"{place} has no {missing!r}"
        parts = ((expect[key], found[key], f"{place}.{key}") for key in expect)
    elif isinstance(expect, list) and isinstance(found, list):
        if len(expect) != len(found):
            return f"{place} has {len(found)} elements, expected {len(expect)}"
        parts = ((e, f, f"{place}[{i}]") for i, (e, f) in enumerate(zip(expect, found, strict=True)))
    else:
        return "" if _equal(expect, found, tolerance) else f"{place} is {found!r}, expected {expect!r}"
    return next((text for e, f, where in parts if (text := difference(e, f, tolerance, where))), "")


def _equal(expect: Any, found: Any, tolerance: float) -> bool:
    if isinstance(expect, bool) or isinstance(found, bool):
        return expect is found
    numbers = (int, float)
    if isinstance(expect, numbers) and isinstance(found, numbers):
        return math.isclose(expect, found, rel_tol=0, abs_tol=tolerance)
    return bool(expect == found)
