"""Writing files whole: through a neighbour and a rename, so that nobody reads half of one.

What is written is on the disk before it takes the place of what stood there (fsync, of the folder
too): after a loss of power one of the two is there, whole.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MOST_BYTES = 2**26
"""Of a file of text that a person or a program writes; a device without an end has more."""


def read_text(path: Path) -> str:
    """The text of a file in UTF-8; raises `ValueError` for more than any such file has."""
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError(f"more than {MOST_BYTES // 2**20} MB, which no such file has")
    return content.decode("utf-8")


def write_bytes(path: Path, content: bytes) -> None:
    """Writes ``content`` to ``path``; what stood there before stays until all of it is written."""
    with written_through(path) as part:
        part.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Writes text in UTF-8, as safely as `write_bytes`."""
    write_bytes(path, text.encode())


@contextmanager
def written_through(path: Path) -> Iterator[Path]:
    """The file to write instead of ``path``: it takes its place at the end, or is removed where
    something fails.  An `OSError` names ``path``.
    """
    part = neighbour(path)
    try:
        yield part
        _sync(part)
        part.replace(path)
    except BaseException as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename, error.filename2 = str(path), None
        raise
    with suppress(OSError):  # some file systems know no folders to sync
        _sync(path.parent)


def neighbour(path: Path) -> Path:
    """The file beside ``path`` that it is written through."""
    return path.with_name(f".{path.name}.part")


def _sync(path: Path) -> None:
    if path.is_dir() and os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
