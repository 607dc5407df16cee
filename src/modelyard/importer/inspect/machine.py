"""An unpickler that unpickles nothing: it follows the opcodes with what they would make, and stops at what it doesn't
know.

Every opcode is either understood here or refused, and so is every global, every call and every state that an object is
given (allowlist.py). Nothing is imported or called.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from modelyard.importer.inspect import opcodes
from modelyard.importer.inspect.allowlist import CALLABLE, VALUES, Arguments, Value, is_storage, state_fits

_MOST_OPCODES = 5_000_000
_NUMBERS = {"BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"}
_TEXTS = {"BINSTRING", "SHORT_BINSTRING", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"}
_INTEGER = re.compile(r"-?(0|[1-9]\d{0,4000})L?")
_BYTES = {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class NotAllowed(Exception):
    """Why a pickle is not mere data, as the end of a sentence that begins with the file."""


def run(stream: opcodes.Stream) -> Value:
    """What the next pickle of the stream would make. Raises NotAllowed."""
    machine = _Machine()
    try:
        for number, (opcode, argument) in enumerate(opcodes.read(stream)):
            if number == _MOST_OPCODES:
                raise NotAllowed("it has more parts than can be looked into")
            if opcode.name == "STOP":
                return machine.pop()
            machine.step(opcode.name, argument, first=number == 0)
    except (ValueError, OverflowError) as error:
        raise NotAllowed("it can't be followed to its end") from error
    raise NotAllowed("it can't be followed to its end")


class _Machine:
    def __init__(self) -> None:
        self._stack: list[Value | None] = []  # None is a mark
        self._memo: dict[int, Value] = {}

    def step(self, name: str, argument: Any, *, first: bool) -> None:
        if name in _LINES:
            self._push(_LINES[name](argument))
        elif name in _NUMBERS:
            self._push(Value("number", argument))
        elif name in _TEXTS:
            self._push(Value("text", argument))
        elif name in _BYTES:
            self._push(Value("bytes"))
        elif name in _CONSTANTS:
            self._push(Value("number", _CONSTANTS[name]))
        elif name in _TUPLES:
            items = [self.pop() for _ in range(_TUPLES[name])]
            self._push(Value("tuple", tuple(reversed(items))))
        elif name in _ACTIONS:
            _ACTIONS[name](self, argument)
        elif not (name == "FRAME" or (name == "PROTO" and first)):
            raise NotAllowed(f"it uses the opcode {name}, which weights don't need")

    def pop(self) -> Value:
        value = self._stack.pop() if self._stack else None
        if value is None:
            raise NotAllowed("its opcodes make no sense")
        return value

    def _push(self, value: Value) -> None:
        self._stack.append(value)

    def _top(self) -> Value:
        value = self.pop()
        self._push(value)
        return value

    def _pop_to_mark(self) -> list[Value]:
        values: list[Value] = []
        while self._stack:
            value = self._stack.pop()
            if value is None:
                return values[::-1]
            values.append(value)
        raise NotAllowed("its opcodes make no sense")

    def mark(self, _: Any) -> None:
        self._stack.append(None)

    def drop(self, _: Any) -> None:
        if not self._stack:
            raise NotAllowed("its opcodes make no sense")
        self._stack.pop()

    def drop_to_mark(self, _: Any) -> None:
        self._pop_to_mark()

    def duplicate(self, _: Any) -> None:
        self._push(self._top())

    def put(self, number: int | str | None) -> None:
        self._memo[len(self._memo) if number is None else int(number)] = self._top()

    def get(self, number: int | str) -> None:
        if int(number) not in self._memo:
            raise NotAllowed("its opcodes make no sense")
        self._push(self._memo[int(number)])

    def make_tuple(self, _: Any) -> None:
        self._push(Value("tuple", tuple(self._pop_to_mark())))

    def make_list(self, _: Any) -> None:
        self._pop_to_mark()
        self._push(Value("list"))

    def make_dict(self, _: Any) -> None:
        self._pop_to_mark()
        self._push(Value("dict"))

    def make_frozenset(self, _: Any) -> None:
        self._pop_to_mark()
        self._push(Value("other"))

    def append(self, _: Any) -> None:
        self.pop()
        self._expect("list")

    def append_all(self, _: Any) -> None:
        self._pop_to_mark()
        self._expect("list")

    def add_all(self, _: Any) -> None:
        self._pop_to_mark()
        self._expect("set")

    def set_item(self, _: Any) -> None:
        self.pop()
        self.pop()
        self._expect_mapping()

    def set_items(self, _: Any) -> None:
        self._pop_to_mark()
        self._expect_mapping()

    def global_(self, argument: str) -> None:
        """One line for the module, one for the name, joined with a space."""
        self._push_global(*argument.split(" ", 1))

    def stack_global(self, _: Any) -> None:
        name, module = self.pop(), self.pop()
        if not (name.kind == module.kind == "text"):
            raise NotAllowed("it makes up the name of what it asks for")
        self._push_global(module.detail, name.detail)

    def call(self, _: Any) -> None:
        arguments, function = self.pop(), self.pop()
        if function.kind != "global" or function.detail not in CALLABLE:
            what = function.detail if function.kind == "global" else "what it has made itself"
            raise NotAllowed(f"it calls {what}")
        items: Arguments = arguments.detail if arguments.kind == "tuple" else ()
        if arguments.kind != "tuple" or not CALLABLE[function.detail](items):
            raise NotAllowed(f"it calls {function.detail} in a way that weights don't need")
        self._push(Value("object", function.detail, tuple(items)))

    def build(self, _: Any) -> None:
        state, target = self.pop(), self._top()
        if not state_fits(target, state):
            what = target.detail if target.kind == "object" else f"a {target.kind}"
            raise NotAllowed(f"it changes {what} in a way that weights don't need")
        target.built = True

    def persistent(self, _: Any) -> None:
        if not is_storage(self.pop()):
            raise NotAllowed("it refers to something outside of it that is no tensor's storage")
        self._push(Value("storage"))

    def _push_global(self, module: str, name: str) -> None:
        known = f"{module}.{name}"
        # The last dot alone may separate the two: a name with dots of its own walks through a module's attributes.
        if "." in name or (known not in VALUES and known not in CALLABLE):
            raise NotAllowed(f"it asks for {_printable(known)}")
        self._push(Value("global", known))

    def _expect(self, kind: str) -> None:
        if self._top().kind != kind:
            raise NotAllowed(f"it adds to a {self._top().kind} as if it were a {kind}")

    def _expect_mapping(self) -> None:
        target = self._top()
        if target.kind != "dict" and target.detail not in ("collections.OrderedDict", "collections.Counter"):
            raise NotAllowed(f"it adds to a {target.kind} as if it were a dict")


def _integer(line: str) -> Value:
    """Unpicklers don't agree on leading zeros and the like."""
    if line in ("00", "01"):
        return Value("number", line == "01")
    if not _INTEGER.fullmatch(line):
        raise NotAllowed("it writes numbers as nobody does")
    return Value("number", int(line.rstrip("L")))


def _float(line: str) -> Value:  # noqa: ARG001 - nothing depends on which
    return Value("number", "a float")


def _string(line: str) -> Value:
    return _unicode(line.strip()[1:-1])


def _unicode(line: str) -> Value:
    """What is written with escapes is no name that counts."""
    return Value("text", line if line.isascii() and "\\" not in line else "")


def _printable(text: str) -> str:
    """A name that somebody made up, for one line of a terminal."""
    plain = text if text.isprintable() else repr(text)
    return plain if len(plain) <= 100 else f"{plain[:99]}…"


_LINES: dict[str, Callable[[str], Value]] = {
    "INT": _integer,
    "LONG": _integer,
    "FLOAT": _float,
    "STRING": _string,
    "UNICODE": _unicode,
}
_Action = Callable[[_Machine, Any], None]
_ACTIONS: dict[str, _Action] = {
    "MARK": _Machine.mark,
    "POP": _Machine.drop,
    "POP_MARK": _Machine.drop_to_mark,
    "DUP": _Machine.duplicate,
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), _Machine.put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine.get),
    "TUPLE": _Machine.make_tuple,
    "LIST": _Machine.make_list,
    "DICT": _Machine.make_dict,
    "FROZENSET": _Machine.make_frozenset,
    "EMPTY_LIST": lambda machine, _: machine._push(Value("list")),
    "EMPTY_DICT": lambda machine, _: machine._push(Value("dict")),
    "EMPTY_SET": lambda machine, _: machine._push(Value("set")),
    "APPEND": _Machine.append,
    "APPENDS": _Machine.append_all,
    "ADDITEMS": _Machine.add_all,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "GLOBAL": _Machine.global_,
    "STACK_GLOBAL": _Machine.stack_global,
    "REDUCE": _Machine.call,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.persistent,
}
