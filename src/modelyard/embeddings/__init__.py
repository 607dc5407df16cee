"""Embedding models: chosen for a task by configuration, loaded once, and naming themselves on every answer."""

from modelyard.embeddings.manager import EmbeddingManager
from modelyard.embeddings.model import EmbeddingModel

__all__ = ["EmbeddingManager", "EmbeddingModel"]
