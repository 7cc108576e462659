"""What commands print to, and the check that what they write can be written."""

import json
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from s3search.errors import InvalidConfig
from s3search.files import neighbour
from s3search.show.terminal.escaping import SafeConsole

OUT = SafeConsole()
ERR = SafeConsole(stderr=True)


def say(*lines: str, on: SafeConsole = OUT) -> None:
    """Prints lines as they stand, however long they are."""
    for line in lines:
        on.print(line, highlight=False, soft_wrap=True)


def answer(value: Any, *lines: str, as_json: bool) -> None:
    """Prints what a command found: as one JSON value, or as lines for people."""
    if as_json:
        print_json(value)
    else:
        say(*lines)


def print_json(value: Any) -> None:
    """One JSON value on stdout, plain whatever the terminal."""
    sys.stdout.write(json.dumps(value, indent=1, default=str) + "\n")
    sys.stdout.flush()


def writable(path: Path) -> None:
    """Raises before any work is done if ``path`` cannot be written."""
    if path.is_dir() or not path.parent.is_dir():
        found = "a folder" if path.is_dir() else f"no folder {path.parent}"
        raise InvalidConfig(f"cannot write {path}: there is {found}")
    probe = neighbour(path)
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InvalidConfig(f"cannot write {path}: {error.strerror}") from error


def make_folder(path: Path) -> None:
    """Makes a folder and those above it where they are not there; raises `InvalidConfig`."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidConfig(f"cannot make the folder {path}: {error.strerror}") from error


@contextmanager
def resumable(where: str) -> Iterator[None]:
    """Says on an interruption that what was measured is saved, and how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        say(
            f"interrupted; what was measured is saved in {where}. Resume with: {this_command()}",
            on=ERR,
        )
        raise


def this_command() -> str:
    """What was typed, to be typed again; without the password of a database URL."""
    from s3search.study.database.engine import redacted

    words = []
    for word in sys.argv[1:]:
        before, separator, after = word.partition("://")
        option, equals, scheme = before.rpartition("=")
        url = scheme + separator + after
        words.append(option + equals + redacted(url) if separator else word)
    return shlex.join(["s3search", *words])
