"""Conditions of a search: `metrics.f1>=0.9` is read strictly and becomes SQL in which every value is a parameter.

Numbers are compared as numbers, text as text, and what a version does not have matches nothing. Knows the tables of the
index (`file.py`), not what lies in them.
"""

from __future__ import annotations

import json
import re
import string
from dataclasses import dataclass
from typing import Any

from modelyard.errors import InvalidInput
from modelyard.refs import Version
from modelyard.repository.index.facts import Scalar, number, order_key, path_of

_EXAMPLE = "write it as task=text-classification, metrics.f1>=0.9, name~bert or 'license in mit,apache-2.0'"
_CONDITION = re.compile(r"\s*([^=!<>~\s](?:[^=!<>~]*[^=!<>~\s])?)\s*(!=|<=|>=|=|<|>|~)\s*(.*?)\s*", re.S)
_AMONG = re.compile(r"\s*([^=!<>~\s]+)\s+in\s+(.*?)\s*", re.S)
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)

# Built-in paths and the columns that hold them.
COLUMNS = {
    "name": "v.name",
    "version": "v.place",
    "digest": "v.digest",
    "size": "v.size",
    "created": "v.created",
    "created_by": "v.created_by",
}


@dataclass(frozen=True, slots=True)
class Value:
    """What stands behind an operator: a text, and the number it can be read as, if any."""

    text: str
    number: int | float | None = None

    @property
    def meanings(self) -> list[Scalar]:
        """Every stored value that is equal to this one."""
        return [self.text] if self.number is None else [self.text, self.number]


@dataclass(frozen=True, slots=True)
class Condition:
    """`path operator value`; with `in` any of several values."""

    path: str
    operator: str
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Sql:
    """A piece of SQL with its parameters."""

    text: str
    parameters: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Order:
    """What the rows `matching` are sorted by: the value, the table to join for it, the beginning of ORDER BY."""

    value: str = "NULL"
    join: Sql = Sql("")
    clause: str = ""


NO_ORDER = Order()


def parse_condition(text: str) -> Condition:
    """Raises InvalidInput, with an example of what is understood."""
    if match := _CONDITION.fullmatch(text):
        path, operator, rest = match.groups()
        values = [rest]
    elif match := _AMONG.fullmatch(text):
        path, rest = match.groups()
        operator, values = "in", [each.strip() for each in rest.split(",")]
    else:
        raise InvalidInput(f"can't take {text!r} as a condition: it has no operator", remedy=_EXAMPLE)
    if values[0].startswith(("=", "<", ">")):  # `=>` for `>=`, say; in double quotes it is a text
        raise InvalidInput(f"can't take {text!r} as a condition: it has two operators", remedy=_EXAMPLE)
    if not all(values):
        raise InvalidInput(f"can't take {text!r} as a condition: a value is missing", remedy=_EXAMPLE)
    condition = Condition(path, operator, tuple(_value(each, text) for each in values))
    if path == "version" and operator != "~":
        for value in condition.values:
            Version.parse(value.text)
    if path == "size" and any(value.number is None for value in condition.values):
        raise InvalidInput(f"can't take {text!r} as a condition: a size is a number of bytes", remedy="write size>1e9")
    return condition


def where(condition: Condition) -> Sql:
    """An expression that is true for the rows of `versions v` that match."""
    path, operator = condition.path, condition.operator
    texts: list[Scalar] = [value.text for value in condition.values]
    if path == "tag":
        return _tagged(operator, texts)
    if path == "size":
        return _compared("v.size", operator, [value.number or 0 for value in condition.values], numeric=True)
    if path == "version" and operator == "~":
        return _compared("v.version", operator, texts)
    if path == "version":
        return _compared("v.place", operator, [order_key(Version.parse(value.text)) for value in condition.values])
    return _compared(COLUMNS[path], operator, texts) if path in COLUMNS else _having(condition)


def ordering(key: str) -> Order:
    """By a path, `-path` for the highest first; versions that have no such value come last, either way.

    Raises InvalidInput.
    """
    path, down = key.removeprefix("-"), key.startswith("-")
    if not path or not path.isprintable() or path == "tag":
        raise InvalidInput(f"can't sort by {key!r}", remedy="name a path, such as metrics.f1, or -metrics.f1")
    direction, pick = ("DESC", "max") if down else ("ASC", "min")
    if path in COLUMNS:
        return Order(clause=f"{COLUMNS[path]} {direction}, ")
    mine = f"path = {_PATH} AND version IN (SELECT id FROM matching)"
    values = f"SELECT version, {pick}(value) AS value FROM facts WHERE {mine} GROUP BY version"
    join = Sql(f"LEFT JOIN ({values}) s ON s.version = v.id", (path_of(path),))
    return Order("s.value", join, f"s.value IS NULL, s.value {direction}, ")


_PATH = "(SELECT id FROM paths WHERE path = ?)"


def _having(condition: Condition) -> Sql:
    """By the facts: at least one value of the path matches; for `!=` there are values and none is equal."""
    path = path_of(condition.path)
    if condition.operator == "!=":
        equal = _having(Condition(condition.path, "=", condition.values))
        present = f"v.id IN (SELECT version FROM facts WHERE path = {_PATH})"
        return Sql(f"({present} AND NOT {equal.text})", (path, *equal.parameters))
    value = condition.values[0]
    if condition.operator in ("=", "in"):
        test = _compared("value", "in", [meaning for each in condition.values for meaning in each.meanings])
    elif condition.operator != "~" and value.number is not None:
        test = _compared("value", condition.operator, [value.number], numeric=True)
    else:
        test = _compared("value", condition.operator, [value.text])
    return Sql(f"v.id IN (SELECT version FROM facts WHERE path = {_PATH} AND {test.text})", (path, *test.parameters))


def _tagged(operator: str, texts: list[Scalar]) -> Sql:
    """By the tags: a version has a set of them, which may be empty; `tag!=x` means that x is not among them."""
    test = _compared("tag", "in" if operator == "!=" else operator, texts)
    negated = "NOT " if operator == "!=" else ""
    return Sql(f"v.id {negated}IN (SELECT version FROM every_tag WHERE {test.text})", test.parameters)


def _compared(column: str, operator: str, values: list[Scalar], *, numeric: bool = False) -> Sql:
    """A column compared with a value, or for `=`, `!=` and `in` with any of several.

    In SQLite every number is less than every text: one more comparison keeps them apart.
    """
    if operator in ("=", "!=", "in"):
        negated = "NOT " if operator == "!=" else ""
        return Sql(f"{column} {negated}IN ({', '.join('?' * len(values))})", tuple(values))
    if operator == "~":
        return Sql(f"({column} >= '' AND instr(lower({column}), ?) > 0)", (str(values[0]).translate(_LOWER),))
    kind = "<" if numeric else ">="
    return Sql(f"({column} {operator} ? AND {column} {kind} '')", (values[0],))


def _value(text: str, whole: str) -> Value:
    """In double quotes a value is a text, whatever it looks like."""
    if text.startswith('"'):
        try:
            quoted = json.loads(text)
        except ValueError:
            quoted = None
        if not isinstance(quoted, str):
            raise InvalidInput(f"can't take {whole!r} as a condition: a quote is not closed", remedy=_EXAMPLE)
        return Value(quoted)
    if not _NUMBER.fullmatch(text):
        return Value(text)
    digits = text.lstrip("+-")
    return Value(text, number(int(text)) if digits.isdigit() else float(text))
