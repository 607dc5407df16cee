"""Where models come from (sources/), what they are (inspect/), and bringing them into the repository."""

from modelyard.importer.importer import ModelImporter

__all__ = ["ModelImporter"]
