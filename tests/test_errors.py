"""The tree of errors: each class with its code and status, as the docstring draws it."""

from __future__ import annotations

import re

import pytest

from modelyard import errors
from modelyard.errors import MissingExtra, ModelyardError


def below(kind: type[ModelyardError]) -> list[type[ModelyardError]]:
    return [kind for child in kind.__subclasses__() for kind in (child, *below(child))]


CLASSES = [kind for kind in below(ModelyardError) if kind.__module__ == errors.__name__]


def test_every_class_has_a_code_of_its_own_and_a_status() -> None:
    everyone: list[type[ModelyardError]] = [ModelyardError, *CLASSES]
    codes = [kind.code for kind in everyone]
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"[a-z_]+", code) for code in codes)
    assert all(400 <= kind.status <= 599 for kind in everyone)


def test_the_docstring_draws_the_tree_that_exists() -> None:
    assert errors.__doc__
    drawn = re.findall(r"^    ([│ ]*)[├└]── (\w+) +(\d+)  \S", errors.__doc__, flags=re.MULTILINE)
    assert [(name, int(status)) for _, name, status in drawn] == [(kind.__name__, kind.status) for kind in CLASSES]
    depths = [len(indent) // 4 + 1 for indent, _, _ in drawn]
    assert depths == [kind.__mro__.index(ModelyardError) for kind in CLASSES]


@pytest.mark.parametrize("kind", [kind for kind in CLASSES if kind is not MissingExtra])
def test_a_message_is_what_is_wrong_and_what_to_do(kind: type[ModelyardError]) -> None:
    error = kind("the disk is full", remedy="make room")
    assert str(error) == "the disk is full; make room"
    assert (error.message, error.remedy) == ("the disk is full", "make room")
    assert str(kind("the disk is full")) == "the disk is full"


def test_a_missing_extra_names_what_to_install() -> None:
    assert str(MissingExtra("torch", "serve")) == "torch is not installed; pip install 'modelyard[serve]'"
