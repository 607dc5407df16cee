"""Real English text for benchmarks: Python's own language reference, which every Python carries."""

from __future__ import annotations

import random
import re
from itertools import pairwise
from pydoc_data.topics import topics

_SENTENCE_END = re.compile(r"(?<=[.!?]) ")


def paragraphs() -> list[str]:
    """Paragraphs of prose, in the reference's order."""
    blocks = (" ".join(block.split()) for text in topics.values() for block in text.split("\n\n"))
    return [block for block in blocks if len(block) > 40 and block[0].isalpha() and ">>>" not in block]


def sentences() -> list[str]:
    return [s for block in paragraphs() for s in _SENTENCE_END.split(block) if len(s) > 15]


def short(count: int) -> list[str]:
    """Sentences: half of them have 11 to 57 tokens."""
    return random.Random(0).sample(sentences(), count)


def mixed(count: int) -> list[str]:
    """Three sentences for each long paragraph, in no order."""
    dice, long = random.Random(0), [block for block in paragraphs() if len(block) > 300]
    chosen = dice.sample(sentences(), count - count // 4) + dice.sample(long, count // 4)
    dice.shuffle(chosen)
    return chosen


def questions(count: int) -> list[tuple[str, str]]:
    """Pairs of a sentence and the one that follows it: a search for the first should find its neighbourhood."""
    followed = [pair for pair in pairwise(sentences()) if pair[0] != pair[1]]
    return random.Random(1).sample(followed, count)
