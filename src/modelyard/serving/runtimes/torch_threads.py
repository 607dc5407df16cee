"""How many threads torch computes with. Each thread of a process has a number of its own, and models differ in it."""

from __future__ import annotations

import torch


def use_threads(count: int) -> None:
    """From here on, what this thread asks torch for is computed by so many."""
    if torch.get_num_threads() != count:
        torch.set_num_threads(count)
