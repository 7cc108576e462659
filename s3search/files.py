"""Files written whole, through a neighbour and a rename, so that nobody reads half of one; and the
texts, values and arrays of files from elsewhere.

What is written is on the disk before it takes the place of what stood there (fsync, of the folder
too): after a loss of power one of the two is there, whole.
"""

import json
import os
import shutil
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from s3search.errors import InvalidConfig

if TYPE_CHECKING:  # the command line's help does not wait for numpy
    from numpy.typing import NDArray

LARGEST_TEXT = 64 * 2**20
"""Bytes of the largest text that is read: prompts of the largest data sets have fewer."""


def is_there(path: Path | str) -> bool:
    """Whether anything is at a path; at a text that is too long to be one there is nothing."""
    try:
        return Path(path).exists()
    except OSError:
        return False


def cache_folder() -> Path:
    """Where things are kept that can be made again: ``$S3SEARCH_CACHE``, else s3search's folder
    among the user's caches.
    """
    own = os.environ.get("S3SEARCH_CACHE")
    base = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return Path(own or f"{base}/s3search").expanduser()


def text_of(path: Path | str) -> str:
    """The text of a file in UTF-8, without the byte order mark that some editors put first; raises
    `InvalidConfig` for one that cannot be read, is no text, or has more than `LARGEST_TEXT` bytes.
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(LARGEST_TEXT + 1)
    except (OSError, ValueError) as error:  # a path with a null byte is a ValueError
        raise InvalidConfig(f"{path}: cannot be read ({error})") from error
    if len(content) > LARGEST_TEXT:
        most = f"more than {LARGEST_TEXT // 2**20} MB, which no such file has"
        raise InvalidConfig(f"{path}: cannot be read ({most})")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        found = "UTF-16" if content[:2] in _UTF16 else f"not UTF-8 (byte {error.start})"
        raise InvalidConfig(
            f"{path}: cannot be read (its text is {found}); save it as UTF-8"
        ) from error


def json_of(path: Path | str) -> Any:
    """The value of a JSON file; raises `InvalidConfig` for what is none."""
    text = text_of(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidConfig(f"{path}: not valid JSON ({error})") from error


def arrays_in(
    path: Path | str, wanted: Callable[[list[str]], Iterable[str]] = list
) -> "dict[str, NDArray[Any]]":
    """The arrays of an ``.npz`` by their names, or that of an ``.npy`` under no name; raises
    `ValueError`, in one line, for any other file, and `FileNotFoundError`.

    Of an archive's names those that ``wanted`` picks are read.
    """
    import numpy as np

    try:
        with Path(path).open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is wrong with the file is said below
            _refuse_bombs(file)
            data = np.load(file, allow_pickle=False)
            if isinstance(data, np.ndarray):
                return {"": data}
            with data:
                found = {key: data[key] for key in wanted(data.files)}
    except FileNotFoundError:
        raise
    except Exception as error:  # a damaged archive can fail in any way
        reason = str(error).partition("\n")[0] or "it ends too early"
        raise ValueError(f"{type(error).__name__}: {reason[:200]}") from error
    odd = [key for key, value in found.items() if not isinstance(value, np.ndarray)]
    if odd:
        raise ValueError(f"{odd[0]!r} is no array")
    return found


def _refuse_bombs(file: BinaryIO) -> None:
    """Raises `ValueError` for an archive that is nearly nothing but unfolds to very much."""
    if file.read(2) == b"PK":  # not what never ends
        with zipfile.ZipFile(file) as archive:
            unfolded = sum(each.file_size for each in archive.infolist())
        size = file.seek(0, os.SEEK_END)
        if unfolded > max(_LARGEST_BOMB, _DENSEST * size):
            raise ValueError(f"its {size:,} bytes unfold to {unfolded:,}: no arrays of numbers do")
    file.seek(0)


_LARGEST_BOMB, _DENSEST = 64 * 2**20, 200  # bytes that any archive may have; times its own size

_UTF16 = (b"\xff\xfe", b"\xfe\xff")


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


@contextmanager
def folder_written_through(folder: Path) -> Iterator[Path]:
    """The folder to write files into instead of ``folder``.  At the end it takes the place of one
    that is not there; into one that is there its files are moved when all of them are written, one
    after another.  Where something fails before, nothing has changed.

    An `OSError` names ``folder``.
    """
    own = folder.resolve()
    part = own / ".s3search.part" if own.exists() else neighbour(own)
    try:
        shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
        part.mkdir(parents=True)
        yield part
        for file in part.iterdir():
            _sync(file)
        _sync(part)
        if part.parent == own:
            for file in sorted(part.iterdir()):
                file.replace(own / file.name)
            part.rmdir()
        else:
            part.replace(own)
    except BaseException as error:
        shutil.rmtree(part, ignore_errors=True)
        if isinstance(error, OSError):
            error.filename, error.filename2 = str(folder), None
        raise
    with suppress(OSError):  # some file systems know no folders to sync
        _sync(part.parent)


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
