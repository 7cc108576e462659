"""What unpickling would look up, told without unpickling; and whether that can be told at all.

A pickle is a program for a stack machine.  This runs the machine on values of which only literal
text is known, so that a name is what the machine would find on its stack, and not the text that
was written last.  Where a name is no literal, or an operation is one that no checkpoint needs,
nobody can tell what loading would call: the answer is a reason not to trust the file.

A tensor's numbers are a file of torch within the file, which is read by `_load_from_bytes`: five
pickles, one after the other, and looked into as well.
"""

import io
import pickletools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s3search.errors import InvalidConfig

_MARKS = {"mark", "stackslice"}
_PERSISTENT = {"PERSID", "BINPERSID"}  # of torch's own files: which storage
_REFUSED = {  # they call what the program that loads them has registered, or bring objects along
    *("EXT1", "EXT2", "EXT4", "NEXT_BUFFER", "READONLY_BUFFER"),
}
_LITERALS = {  # not those of Python 2, which are text or bytes as who loads them chooses
    *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
_TORCH_FILE = "torch.storage._load_from_bytes"
_PICKLES_OF_TORCH_FILE = 5  # magic number, version, byte order, the object, keys of its storages
_PUTS = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}
_GETS = {"GET", "BINGET", "LONG_BINGET"}


@dataclass(frozen=True, slots=True, kw_only=True)
class NamesOfPickle:
    """The functions and classes that a pickle names, in their order, and why these may not be
    all that it calls; None where they are.
    """

    names: tuple[str, ...]
    doubt: str | None


class _Doubt(Exception):
    """Why the rest cannot be told."""


class _Opaque:
    """A value of which nothing is known; or a mark of the stack."""


_VALUE, _MARK, _READS_TORCH_FILE = _Opaque(), _Opaque(), _Opaque()


def names_of_pickle(path: Path) -> NamesOfPickle:
    """What unpickling a file would look up, as far as it can be told; nothing of it is run.

    Raises `InvalidConfig` for a file that is no pickle at all.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of escapes in its texts
        return _names_in(path)


def _names_in(path: Path) -> NamesOfPickle:
    try:
        content = path.read_bytes()
        operations = pickletools.genops(content)
        first = next(operations)
    except (OSError, ValueError, StopIteration) as error:
        raise InvalidConfig(f"{path} is no pickle ({error})") from error
    machine = _Machine()
    try:
        machine.step(first)
        for operation in operations:
            machine.step(operation)
        machine.check_end(len(content))
    except _Doubt as doubt:
        return NamesOfPickle(names=tuple(machine.names), doubt=str(doubt))
    except ValueError as error:  # cut off, or garbage: what comes before it would be run
        if not machine.names:
            raise InvalidConfig(f"{path} is no pickle ({error})") from error
        return NamesOfPickle(names=tuple(machine.names), doubt=f"it breaks off: {error}")
    return NamesOfPickle(names=tuple(machine.names), doubt=None)


class _Machine:
    """The stack and the memo of an unpickler, with what is known of their values."""

    def __init__(self, *, is_within: bool = False) -> None:
        self.names: dict[str, None] = {}
        self._is_within = is_within  # a file of torch within the file
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._end: int | None = None

    def step(self, operation: tuple[Any, Any, int | None]) -> None:
        """One operation; raises `_Doubt` where what follows cannot be told."""
        opcode, argument, place = operation
        name, at = opcode.name, place or 0
        if name in _REFUSED or (name in _PERSISTENT and not self._is_within):
            raise _Doubt(f"operation {name} at byte {at}, which no checkpoint needs")
        if name in _LITERALS:
            self._stack.append(argument)
        elif name in _PUTS:
            self._memo[len(self._memo) if argument is None else argument] = self._top(at)
        elif name in _GETS:
            if argument not in self._memo:
                raise _Doubt(f"a value at byte {at} that was never kept")
            self._stack.append(self._memo[argument])
        elif name in _CALLS:
            self._stack.append(_CALLS[name](self, argument, at))
        elif name == "DUP":
            self._stack.append(self._top(at))
        elif name == "STOP":
            self._end = at + 1
        else:
            self._generic(opcode)

    def check_end(self, n_bytes: int) -> None:
        """Raises `_Doubt` where another program may follow the one that was told."""
        if self._end is not None and n_bytes > self._end:
            raise _Doubt(
                f"{n_bytes - self._end} bytes behind its end, which some readers go on with"
            )

    def _global(self, argument: Any, at: int) -> Any:
        return self._named(*_split(argument, at), at)

    def _stack_global(self, _: Any, at: int) -> Any:
        own, module = self._pop(at), self._pop(at)
        if not (isinstance(module, str) and isinstance(own, str)):
            raise _Doubt(f"a name at byte {at} that is made when it is loaded")
        return self._named(module, own, at)

    def _instance(self, argument: Any, at: int) -> Any:
        self._pop_to_mark()
        if self._named(*_split(argument, at), at) is _READS_TORCH_FILE:
            raise _Doubt(f"a file of torch at byte {at} that is made when it is loaded")
        return _VALUE

    def _tuple_of_one(self, _: Any, at: int) -> Any:
        return (self._pop(at),)

    def _reduce(self, _: Any, at: int) -> Any:
        arguments, called = self._pop(at), self._pop(at)
        if called is _READS_TORCH_FILE:
            self._look_into(arguments, at)
        return _VALUE

    def _named(self, module: str, name: str, at: int) -> Any:
        self.names[f"{module}.{name}"] = None
        if not (all(part.isidentifier() for part in module.split(".")) and name.isidentifier()):
            raise _Doubt(f"a name at byte {at} that is no plain one")
        return _READS_TORCH_FILE if f"{module}.{name}" == _TORCH_FILE else _VALUE

    def _look_into(self, arguments: Any, at: int) -> None:
        """The names of a file of torch within the file, but for its kinds of storage."""
        if not (isinstance(arguments, tuple) and isinstance(arguments[0], bytes)):
            raise _Doubt(f"a file of torch at byte {at} that is made when it is loaded")
        if self._is_within:
            raise _Doubt(f"a file of torch at byte {at} within another")
        content = io.BytesIO(arguments[0])
        try:
            for _ in range(_PICKLES_OF_TORCH_FILE):
                own = _Machine(is_within=True)
                for operation in pickletools.genops(content):
                    own.step(operation)
                self.names |= {name: None for name in own.names if not _is_storage(name)}
        except ValueError as error:
            raise _Doubt(f"a file of torch at byte {at} that is none") from error

    def _generic(self, opcode: Any) -> None:
        """Takes and leaves what the operation's own description says."""
        kinds = [kind.name for kind in opcode.stack_before]
        if "mark" in kinds:
            self._pop_to_mark()
            kinds = kinds[: kinds.index("mark")]  # what lies below it
        for _ in kinds:
            if self._pop(0) is _READS_TORCH_FILE and opcode.name != "POP":
                raise _Doubt("a function that is handed on")
        after = (kind.name for kind in opcode.stack_after)
        self._stack += [_MARK if kind == "mark" else _VALUE for kind in after]

    def _pop_to_mark(self) -> None:
        while self._stack:
            top = self._stack.pop()
            if top is _MARK:
                return
            if top is _READS_TORCH_FILE:
                raise _Doubt("a function that is handed on")
        raise _Doubt("a mark that was never set")

    def _pop(self, at: int) -> Any:
        top = self._top(at)
        self._stack.pop()
        return top

    def _top(self, at: int) -> Any:
        if not self._stack or self._stack[-1] is _MARK:
            raise _Doubt(f"nothing on its stack at byte {at}")
        return self._stack[-1]


_CALLS: dict[str, Callable[[_Machine, Any, int], Any]] = {
    "GLOBAL": _Machine._global,
    "STACK_GLOBAL": _Machine._stack_global,
    "INST": _Machine._instance,
    "TUPLE1": _Machine._tuple_of_one,
    "REDUCE": _Machine._reduce,
}


def _is_storage(name: str) -> bool:
    module, _, own = name.rpartition(".")
    return module in {"torch", "torch.storage"} and own.endswith("Storage") and own[0] != "_"


def _split(argument: Any, at: int) -> tuple[str, str]:
    parts = str(argument).split(" ")
    if len(parts) != 2:
        raise _Doubt(f"a name at byte {at} that is no plain one")
    return parts[0], parts[1]
