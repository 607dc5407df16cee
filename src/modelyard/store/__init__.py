"""Bytes: objects in a bucket, journals, transfer, the local cache. Knows nothing of models."""

from modelyard.store.backends import GCS, S3, Azure, LocalDisk, Memory, open_store
from modelyard.store.cache import Cache
from modelyard.store.journal import Entry, Journal
from modelyard.store.objects import Object, Store

__all__ = ["GCS", "S3", "Azure", "Cache", "Entry", "Journal", "LocalDisk", "Memory", "Object", "Store", "open_store"]
