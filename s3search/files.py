"""Files written whole, through a neighbour and a rename, so that nobody reads half of one; and the
text of files from elsewhere.
"""

import json
from pathlib import Path
from typing import Any

from s3search.errors import InvalidConfig

LARGEST_TEXT = 64 * 2**20
"""Bytes of the largest text that is read: prompts of the largest data sets have fewer."""


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
        raise InvalidConfig(f"{path}: cannot be read (more than {LARGEST_TEXT} bytes of text)")
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


_UTF16 = (b"\xff\xfe", b"\xfe\xff")


def write_bytes(path: Path, content: bytes) -> None:
    """Writes ``content`` to ``path``; what stood there before stays until all of it is written."""
    temporary = neighbour(path)
    temporary.write_bytes(content)
    temporary.replace(path)


def write_text(path: Path, text: str) -> None:
    """Writes text in UTF-8, as safely as `write_bytes`."""
    write_bytes(path, text.encode())


def neighbour(path: Path) -> Path:
    """The file beside ``path`` that it is written through."""
    return path.with_name(f".{path.name}.part")
