"""config get, set, unset, undo, history."""

from __future__ import annotations

import pytest

from .conftest import Cli, refused


def test_set_and_get(yard: Cli) -> None:
    done = yard("config", "set", "limits", "model", "MiniLM", "--reason", "small")
    assert (done.code, done.out) == (0, 'limits.model is "MiniLM" now\n')
    assert yard("config", "set", "limits", "splits", '{"a": 0.1}').code == 0

    assert yard("config", "get", "limits", "model").out == "MiniLM\n"
    assert yard("config", "get", "limits", "model", "--json").json == "MiniLM"
    assert yard("config", "get", "limits", "splits").json == {"a": 0.1}
    assert yard("config", "get", "limits", "--json").json == {"model": "MiniLM", "splits": {"a": 0.1}}
    assert yard("config", "get", "routing").json == {}
    refused(yard("config", "get", "nothing"), "there is no configuration section 'nothing'; begin it with")
    entries = yard("config", "history", "limits", "--json").json
    assert [(entry["number"], entry["by"]) for entry in entries] == [(1, "tester"), (2, "tester")]


def test_a_change_is_taken_back_and_brought_back(yard: Cli) -> None:
    for value in ("MiniLM", "bge"):
        yard("config", "set", "embeddings", "semantic_search", value)

    assert yard("config", "undo", "embeddings").out == 'semantic-search: "bge" → "MiniLM"\n'
    assert yard("config", "get", "embeddings", "semantic-search").out == "MiniLM\n"
    undone = yard("config", "undo", "embeddings", "semantic-search", "--reason", "after all")
    assert undone.out == 'semantic-search: "MiniLM" → "bge"\n'

    header, *lines = yard("config", "history", "embeddings").out.splitlines()
    assert header.split() == ["AT", "BY", "WHAT", "CHANGE"]
    assert " ".join(lines[0].split()).endswith('set semantic-search semantic-search: not set → "MiniLM"')
    assert " ".join(lines[-1].split()).endswith('undo semantic-search: after all semantic-search: "MiniLM" → "bge"')


def test_a_default_counts_again(yard: Cli) -> None:
    assert yard("config", "set", "embeddings", "semantic-search", "bge").err == ""
    unset = yard("config", "unset", "embeddings", "semantic-search")
    assert (unset.code, unset.err) == (0, 'note: here the default says "all-MiniLM-L6-v2"\n')
    refused(yard("config", "unset", "embeddings", "semantic-search"), "config get embeddings --origin`")


def test_where_a_value_comes_from(yard: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    yard("config", "set", "embeddings", "clustering", "bge")
    monkeypatch.setenv("MODELYARD_CONFIG__EMBEDDINGS__CLASSIFICATION", "e5")

    assert yard("config", "get", "embeddings", "--origin", "--json").json == {
        "semantic-search": {"value": "all-MiniLM-L6-v2", "origin": "default"},
        "clustering": {"value": "bge", "origin": "bucket"},
        "classification": {"value": "e5", "origin": "variable MODELYARD_CONFIG__EMBEDDINGS__CLASSIFICATION"},
    }
    _, line = yard("config", "get", "embeddings", "semantic_search", "--origin").out.splitlines()
    assert line.split() == ["semantic-search", '"all-MiniLM-L6-v2"', "default"]
    refused(yard("config", "get", "embeddings", "nothing", "--origin"), "there is no 'nothing'")


def test_what_does_not_count_here_is_said(yard: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELYARD_CONFIG__LIMITS__RATE", "5")
    done = yard("config", "set", "limits", "rate", "6")
    assert (done.code, done.err) == (0, "note: here the variable MODELYARD_CONFIG__LIMITS__RATE says 5\n")


def test_a_bad_variable(yard: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELYARD_CONFIG__ENGINES__TINY", "abacus")
    refused(yard("config", "get", "engines"), "the variable MODELYARD_CONFIG__ENGINES__TINY: engines.tiny can't be")


def test_nothing_to_undo(yard: Cli) -> None:
    refused(yard("config", "undo", "limits"), "'limits' was never set; see `modelyard config history limits`")
