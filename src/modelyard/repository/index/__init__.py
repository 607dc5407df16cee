"""The local index of a store, which answers questions over all versions fast."""

from modelyard.repository.index.index import Index
from modelyard.repository.index.search import Found

__all__ = ["Found", "Index"]
