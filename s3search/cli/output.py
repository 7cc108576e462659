"""What commands print to, and the check that what they write can be written."""

import json
import shlex
import sys
from pathlib import Path
from typing import Any

from s3search.errors import InvalidConfig
from s3search.files import neighbour
from s3search.show.terminal.escaping import SafeConsole

OUT = SafeConsole()
ERR = SafeConsole(stderr=True)


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
