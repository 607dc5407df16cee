"""Decision trees out of a file: whether their nodes lead where the tree ends, and nowhere else.

scikit-learn walks trees in compiled code that trusts them; a crafted one would read memory that is not its own, or
never come to an end.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.ensemble._hist_gradient_boosting.predictor import TreePredictor
from sklearn.pipeline import Pipeline
from sklearn.tree._tree import Tree

from modelyard.errors import InvalidInput

# What rebuilds them; skops does not trust these by itself.
TYPES = ("sklearn.tree._tree.Tree", "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor")


def check(model: Any) -> None:
    """Raises InvalidInput for a model with a tree that is not sound."""
    for tree, width in _trees(model, None, set()):
        if not (_is_sound_tree(tree, width) if isinstance(tree, Tree) else _is_sound_predictor(tree, width)):
            raise InvalidInput("a decision tree in it is damaged", remedy="get the file again from where it came")


def _trees(value: Any, width: int | None, seen: set[int]) -> Iterator[tuple[Any, int | None]]:
    """Every tree inside, with the number of features that whoever walks it makes sure of."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, (Tree, TreePredictor)):
        yield value, width
        return
    if isinstance(value, dict):
        inner = list(value.values())
    elif isinstance(value, (list, tuple)) or (isinstance(value, np.ndarray) and value.dtype == object):
        inner = list(np.ravel(value)) if isinstance(value, np.ndarray) else list(value)
    else:
        inner = list(getattr(value, "__dict__", {}).values())
        own = getattr(value, "__dict__", {}).get("n_features_in_")
        if isinstance(value, Pipeline):
            width = None  # its steps may make more features, or fewer
        elif isinstance(own, (int, np.integer)):
            # An ensemble checks the features once, and its trees take what they get.
            width = int(own) if width is None or not hasattr(value, "tree_") else min(width, int(own))
    for each in inner:
        yield from _trees(each, width, seen)


def _is_sound_tree(tree: Any, width: int | None) -> bool:
    if tree.capacity != tree.node_count or tree.node_count < 1:
        return False
    inner = tree.children_left != -1
    ways = np.stack([tree.children_left, tree.children_right])[:, inner]
    return _lead_on(ways, np.flatnonzero(inner), tree.node_count) and _known(tree.feature[inner], width)


def _is_sound_predictor(predictor: Any, width: int | None) -> bool:
    nodes = predictor.nodes
    if nodes.ndim != 1 or not len(nodes):
        return False
    inner = nodes["is_leaf"] == 0
    ways = np.stack([nodes["left"], nodes["right"]])[:, inner].astype(np.int64)
    sets = nodes["bitset_idx"][inner & (nodes["is_categorical"] != 0)]
    return (
        _lead_on(ways, np.flatnonzero(inner), len(nodes))
        and _known(nodes["feature_idx"][inner], width)
        and bool((sets < len(predictor.raw_left_cat_bitsets)).all())
        and predictor.raw_left_cat_bitsets.shape[1:] == (8,)
    )


def _lead_on(ways: np.ndarray[Any, Any], origins: np.ndarray[Any, Any], count: int) -> bool:
    """Children stand behind their parents, so every walk ends."""
    return bool(((ways > origins) & (ways < count)).all())


def _known(features: np.ndarray[Any, Any], width: int | None) -> bool:
    return width is not None and bool(((features >= 0) & (features < width)).all())
