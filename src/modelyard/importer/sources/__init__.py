"""The places models are imported from. A new one is one file and one line in SOURCES."""

from __future__ import annotations

from modelyard.errors import InvalidInput
from modelyard.importer.sources.bucket import BucketSource
from modelyard.importer.sources.huggingface import HuggingFaceSource
from modelyard.importer.sources.local import LocalSource
from modelyard.importer.sources.mlflow import MLflowSource
from modelyard.importer.sources.ollama import OllamaSource
from modelyard.importer.sources.source import Estate, Fetched, Listed, Source
from modelyard.importer.sources.yard import YardSource

__all__ = ["SOURCES", "Estate", "Fetched", "Listed", "Source", "source_of"]

SOURCES: tuple[Source, ...] = (
    HuggingFaceSource(),
    BucketSource(),
    YardSource(),
    MLflowSource(),
    OllamaSource(),
    LocalSource(),
)


def source_of(address: str) -> Source:
    """The place an address means. Raises InvalidInput, naming the places there are."""
    for source in SOURCES:
        if source.matches(address):
            return source
    *others, last = (source.example for source in SOURCES)
    raise InvalidInput(
        f"can't import from {address!r}: no such kind of source", remedy=f"give {', '.join(others)} or {last}"
    )
