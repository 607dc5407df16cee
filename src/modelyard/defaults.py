"""What a public class takes when it is called without its parts: those of the default Yard.

The one place that reaches outward, by name and at the moment of the call, so that inner modules import no outer ones.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any


def yard() -> Any:
    """A `Yard` built from the settings."""
    return import_module("modelyard.yard").Yard.default()
