"""The smallest sensible value for each input: what a model is warmed up and tried out with.

Raw inputs go by their names, here and at `modelyard predict`: `text` and `query` are texts, `image` is an image file.
"""

from __future__ import annotations

IMAGE = "image"
TEXTS = ("text", "query")

# A grey PNG, 32 pixels wide and high, as it travels in JSON.
PICTURE = "iVBORw0KGgoAAAANSUhEUgAAACAAAAAgCAAAAABWESUoAAAAGElEQVR42mNsYMAPmBhGFYwqGFUwQhUAAJe+AMD8WknZAAAAAElFTkSuQmCC"
_SENTENCE = "a short sentence"


def sample(name: str, datatype: str) -> str | bool | int:
    """One element of an input."""
    if datatype == "BYTES":
        return PICTURE if name == IMAGE else _SENTENCE
    return False if datatype == "BOOL" else 0


def is_guess(name: str, datatype: str) -> bool:
    """Whether a model may have good reasons to refuse the sample: only its author knows what its texts hold."""
    return datatype == "BYTES" and name != IMAGE and name not in TEXTS
