"""One input, watched: how long it takes, how it fails, and what it tries to run."""

import random
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from s3search.errors import S3SearchError
from tests.formats.fuzz.mutations import CANARY
from tests.formats.fuzz.readers import Reader

MOST_SECONDS = 10.0
_LONGEST_SENTENCE = 2000  # letters of a message

_RUNNING = frozenset(
    {
        "os.system",
        "os.exec",
        "os.fork",
        "os.posix_spawn",
        "os.spawn",
        "pty.spawn",
        "subprocess.Popen",
        "socket.connect",
        "socket.getaddrinfo",
        "ctypes.dlopen",
    }
)
_seen: list[str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What is wrong with how an input was read; equal for inputs that fail in one way."""

    what: str
    where: str
    example: str = field(default="", compare=False)


class _TooLong(BaseException):
    """An input takes more than its seconds."""


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _seen is None:
        return
    is_text = (
        event == "exec"
        and isinstance(arguments[0], CodeType)
        and arguments[0].co_filename == "<string>"
        and not _is_imported()
    )
    if event in _RUNNING or is_text:
        _seen.append(event)


def _is_imported() -> bool:
    """Whether the code that runs is a module's, imported late: some write classes as texts."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_code is not fault_of.__code__:
        if frame.f_globals.get("__name__") in _IMPORTING:
            return True
        frame = frame.f_back
    return False


_IMPORTING = frozenset({"importlib._bootstrap", "collections", "dataclasses"})

sys.addaudithook(_hook)


@contextmanager
def _watched(seconds: float) -> Iterator[list[str]]:
    """What is run meanwhile; raises `_TooLong` after so many seconds."""
    global _seen  # noqa: PLW0603  # an audit hook is for ever, and has no other place

    def ring(*_: object) -> None:
        raise _TooLong

    before = signal.signal(signal.SIGALRM, ring)
    left, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    began, _seen = time.monotonic(), []
    try:
        yield _seen
    finally:
        _seen = None
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if left:  # the alarm of who runs the tests
            signal.setitimer(signal.ITIMER_REAL, max(0.001, left - (time.monotonic() - began)))


def fault_of(reader: Reader, path: Path) -> tuple[Fault | None, bool]:
    """What is wrong with reading that file, if anything, and whether it was read."""
    is_read, found = False, None
    began = time.monotonic()
    with _watched(MOST_SECONDS) as ran:
        try:
            reader.read(path)
            is_read = True
        except S3SearchError as error:
            found = _fault_of_message(str(error), error)
        except _TooLong as error:
            found = Fault(what=f"takes more than {MOST_SECONDS:g} s", where=_place(error))
        except Exception as error:
            found = Fault(what=type(error).__name__, where=_place(error), example=str(error)[:120])
    if ran:
        found = Fault(what=f"runs something: {', '.join(sorted(set(ran)))}", where="")
    elif CANARY.partition(":")[0] in sys.modules:
        del sys.modules[CANARY.partition(":")[0]]
        found = Fault(what="imports a module that the file names", where="")
    elif found is None and time.monotonic() - began > MOST_SECONDS:
        found = Fault(what=f"takes more than {MOST_SECONDS:g} s", where="")
    return found, is_read


def _fault_of_message(message: str, error: BaseException) -> Fault | None:
    if not message.strip():
        return Fault(what="an error without a sentence", where=_place(error))
    if len(message) > _LONGEST_SENTENCE:
        return Fault(
            what=f"a sentence of more than {_LONGEST_SENTENCE} letters", where=_place(error)
        )
    return None


def _place(error: BaseException) -> str:
    """The innermost line of the package that the error came through."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [each for each in frames if "s3search/" in each.filename.replace("\\", "/")]
    last = (own or frames)[-1]
    return f"{last.filename.rpartition('s3search/')[2]}:{last.lineno}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What came of many inputs of one reader."""

    inputs: int
    read: int
    seconds: float
    slowest: float
    faults: dict[Fault, list[int]]  # the numbers of the inputs


def run(name: str, reader: Reader, folder: Path, numbers: range) -> Run:
    """Reads the inputs of those numbers; each is known by the reader's name and its number."""
    samples = [*reader.samples()]
    for beside, content in reader.beside().items():
        write(folder / beside, content)
    for sample in samples:  # what is imported late is imported now, and counts for none
        write(folder / sample.name, sample.valid)
        reader.read(folder / sample.name)
    faults: dict[Fault, list[int]] = {}
    n_read, began, slowest = 0, time.monotonic(), 0.0
    for number in numbers:
        chance = random.Random(f"{name} {number}")
        sample = chance.choice(samples)
        path = folder / sample.name
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what no writer is meant to write
            content = sample.hostile(chance)
        write(path, content)
        own = time.monotonic()
        fault, is_read = fault_of(reader, path)
        slowest = max(slowest, time.monotonic() - own)
        n_read += is_read
        if fault is not None:
            faults.setdefault(fault, []).append(number)
        write(path, sample.valid)
    seconds = time.monotonic() - began
    return Run(inputs=len(numbers), read=n_read, seconds=seconds, slowest=slowest, faults=faults)


def write(path: Path, content: bytes) -> None:
    """Writes a file, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
