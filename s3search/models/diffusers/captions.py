"""Prompts from files, as their authors write them: the one reader.

    .jsonl, .ndjson     our own: {"prompt": ..., "negative_prompt": ...} a line, and no other key
    .json               a list of texts or of objects, or MS-COCO's annotations; else as .jsonl
    .csv, .tsv          a table with a header, as PartiPrompts' (Prompt, Category, ...)
    any other           a prompt per line

Of tables and JSON documents the column or key of the text is named prompt, caption or text, and
`negative_prompt` is read; all others describe the prompt and do not count.
"""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s3search.errors import InvalidConfig
from s3search.files import text_of

_TEXTS = ("prompt", "caption", "text")
_NEGATIVE = "negative_prompt"
_ANNOTATIONS = "annotations"  # MS-COCO's key
_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_LONGEST = 100_000  # letters of a field: more is a file with a quote that never ends


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What an image shall show, and what it shall not."""

    text: str
    negative: str | None = None  # None: the pipeline's own


def read_prompts(source: str | Sequence[str]) -> tuple[Prompt, ...]:
    """Prompts of a list, or of a file of texts, JSON or a table by its suffix; raises
    `InvalidConfig`.

    Empty lines are skipped, and equal prompts are one.
    """
    if isinstance(source, str):
        name, found = source, _of_file(source)
    else:
        if not all(isinstance(line, str) for line in source):
            raise InvalidConfig(f"prompts: needs a file or a list of strings, found {source!r}")
        name, found = "prompts", [Prompt(text=line.strip()) for line in source if line.strip()]
    if not found:
        raise InvalidConfig(f"prompts: {name!r} holds none; write one per line")
    return tuple(dict.fromkeys(found))


def _of_file(name: str) -> list[Prompt]:
    path = Path(name).expanduser()
    try:
        text = text_of(path)
    except InvalidConfig as error:
        raise InvalidConfig(f"prompts: cannot read {name!r} ({error})") from error
    suffix = path.suffix.lower()
    if suffix in _SEPARATORS:
        return _of_table(text, _SEPARATORS[suffix], name)
    if suffix == ".json":
        document = _document(text)
        if document is not None:
            return _of_document(document, name)
    if suffix in (".json", ".jsonl", ".ndjson"):
        return [_of_line(line, f"{name}:{i}") for i, line in _lines(text)]
    _refuse_table(text, name)
    return [Prompt(text=line) for _, line in _lines(text)]


def _lines(text: str) -> Iterator[tuple[int, str]]:
    for i, line in enumerate(text.splitlines(), 1):
        if line.strip():
            yield i, line.strip()


# --- JSON ---


def _document(text: str) -> Any:
    """The value of a text that is one JSON document of more than one object; else None."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    is_one_line = isinstance(found, dict) and _ANNOTATIONS not in found
    return None if is_one_line else found


def _of_document(found: Any, name: str) -> list[Prompt]:
    entries = found.get(_ANNOTATIONS) if isinstance(found, dict) else found
    if not isinstance(entries, list):
        raise InvalidConfig(
            f"prompts: {name} holds no list of texts or objects, and no {_ANNOTATIONS!r} as "
            "MS-COCO's files have"
        )
    return [_of_entry(entry, f"{name}[{i}]") for i, entry in enumerate(entries)]


def _of_entry(entry: Any, where: str) -> Prompt:
    if isinstance(entry, str) and entry.strip():
        return Prompt(text=entry.strip())
    if not isinstance(entry, dict):
        raise InvalidConfig(f"prompts: {where} is neither a text nor an object: {_short(entry)}")
    key = _text_key([*entry], where)
    negatives = [own for own in entry if own.lower() == _NEGATIVE]
    return _made(entry[key], entry[negatives[0]] if negatives else None, where)


def _of_line(line: str, where: str) -> Prompt:
    try:
        data = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidConfig(f"prompts: {where} is not JSON ({error})") from error
    text = data.get("prompt") if isinstance(data, dict) else None
    negative = data.get(_NEGATIVE) if isinstance(data, dict) else None
    known = {"prompt", _NEGATIVE}
    if not isinstance(text, str) or not isinstance(negative, str | None) or set(data) - known:
        raise InvalidConfig(
            f'prompts: {where} needs {{"prompt": ..., "negative_prompt": ...}} with texts (the '
            f"second may be left out), found {line[:80]}"
        )
    return Prompt(text=text, negative=negative)


# --- tables ---


def _of_table(text: str, separator: str, name: str) -> list[Prompt]:
    try:
        rows = _rows(text, separator)
    except csv.Error as error:
        raise InvalidConfig(
            f"prompts: {name} is no table with {separator!r} between its columns ({error})"
        ) from error
    if not rows:
        return []
    header, found = rows[0], []
    column = header.index(_text_key(header, f"{name}:1"))
    others = [i for i, own in enumerate(header) if own.strip().lower() == _NEGATIVE]
    for i, row in enumerate(rows[1:], 2):
        if len(row) != len(header):
            raise InvalidConfig(
                f"prompts: {name}: row {i} has {len(row)} columns, the header {len(header)}; put "
                "texts that hold the separator in double quotes"
            )
        negative = row[others[0]].strip() or None if others else None
        found.append(_made(row[column], negative, f"{name}: row {i}"))
    return found


def _rows(text: str, separator: str) -> list[list[str]]:
    """Rows that are not empty; of a .tsv whose quotes are letters, with them."""
    limit = csv.field_size_limit(_LONGEST)
    try:
        made = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
        return [row for row in made if any(cell.strip() for cell in row)]
    except csv.Error:
        if separator != "\t":
            raise
        lines = (line for line in text.splitlines() if line.strip())
        return [line.split(separator) for line in lines]
    finally:
        csv.field_size_limit(limit)


def _refuse_table(text: str, name: str) -> None:
    """Raises `InvalidConfig` for lines whose first is the header of a table."""
    first = next((line for _, line in _lines(text)), "")
    for suffix, separator in _SEPARATORS.items():
        cells = [cell.strip().strip('"').lower() for cell in first.split(separator)]
        if len(cells) > 1 and set(cells) & {*_TEXTS} and not any(" " in cell for cell in cells):
            raise InvalidConfig(
                f"prompts: {name} begins with the header of a table ({first[:80]!r}) and is named "
                f"as a text of one prompt per line; name it *{suffix}"
            )


def _text_key(names: Sequence[str], where: str) -> str:
    """The column or key of the texts."""
    found = [name for name in names if name.strip().lower() in _TEXTS]
    if len(found) != 1:
        has = f"has {' and '.join(map(repr, found))}" if found else f"has {_short([*names])}"
        raise InvalidConfig(
            f"prompts: {where} {has}; needs exactly one of {', '.join(_TEXTS)}, which holds the "
            "texts"
        )
    return found[0]


def _made(text: Any, negative: Any, where: str) -> Prompt:
    if not isinstance(text, str) or not text.strip() or not isinstance(negative, str | None):
        raise InvalidConfig(f"prompts: {where} holds no text: {_short(text)}")
    return Prompt(text=text.strip(), negative=negative)


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        value = dict(list(value.items())[:8])
    return repr(value)[:80]
