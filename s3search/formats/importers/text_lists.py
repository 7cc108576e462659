"""Lists of numbers in texts: JSON, Python, or numbers with anything usual between them.

A text may begin with a byte order mark, name its list (``sigmas = [...]``, ``"sigmas": [...]``),
wrap it (``np.array([...], dtype=...)``), use any of ``[ ] ( ) { }``, separate numbers by commas,
semicolons, blanks or lines, and comment with ``#``.  Of several named lists the one that is asked
for is taken; a text that could be read in two ways is refused.  All of it takes linear time.
"""

import json
import math
import re
from collections.abc import Sequence
from typing import Any

from s3search.errors import InvalidConfig
from s3search.files import text_of

MOST_NUMBERS = 10_000
"""Entries of the longest list that is read: published ones have at most a thousand."""

_LONGEST = 64  # letters of a number
_NAME = re.compile(r"^[ \t]*[\"']?([A-Za-z_][A-Za-z0-9_.]*)[\"']?[ \t]*[:=][ \t]*", re.MULTILINE)
_WRAPPER = re.compile(r"(?:[A-Za-z_]+\.)?\b(?:array|tensor|asarray|list|tuple)\(")
_OPTION = re.compile(r",[ \t\n]*(?:dtype|device)=[A-Za-z0-9_.:'\"]+")
_INNERMOST = re.compile(r"[\[(][^\[\]()]*[\])]")
_BETWEEN = re.compile(r"[\s,]+")
_DECIMAL_COMMA = re.compile(r"\d,\d")


def read_numbers(source: str, name: str) -> list[float]:
    """The one list of a file, or of several the one that is called ``name``; raises
    `InvalidConfig`.
    """
    text = text_of(source)
    try:
        found = json.loads(text, parse_constant=float)
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, dict):
        found = _named(source, name, found)
    if isinstance(found, list):
        return _of_json(source, found)
    return _of_text(source, _part_named(source, name, text))


def read_lists(source: str) -> list[list[float]]:
    """Every innermost bracketed list of numbers in a text, in order; the rest is prose."""
    text = text_of(source)
    found = [own for match in _INNERMOST.finditer(text) if (own := _listed(match.group()))]
    if not found:
        raise InvalidConfig(f"{source}: holds no list of numbers like [80.0, 5.3, 0.002]")
    return found


def _of_json(source: str, found: list[Any]) -> list[float]:
    if len(found) == 1 and isinstance(found[0], list):
        found = found[0]
    for value in found:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InvalidConfig(
                f"{source}: expected a list of numbers, found {str(value)[:_LONGEST]!r} in it"
            )
    return [_number(source, str(value)) for value in _few(source, found)]


def _named(source: str, name: str, found: dict[str, Any]) -> Any:
    lists = {key: value for key, value in found.items() if isinstance(value, list)}
    return lists[_chosen_name(source, name, [*lists])]


def _chosen_name(source: str, name: str, names: Sequence[str]) -> str:
    """The only name, or the only one that says what is asked for."""
    fitting = [each for each in names if name.rstrip("s") in each.lower()]
    if len(names) == 1:
        fitting = [*names]
        other = {"sigmas": "timestep", "timesteps": "sigma"}.get(name)
        if other is not None and other in names[0].lower():
            raise InvalidConfig(
                f"{source}: {name} were asked for, and the file's list is called {names[0]!r}; "
                f"import it as {other}s"
            )
    if len(fitting) != 1:
        listed = ", ".join(map(repr, names[:8])) or "nothing"
        raise InvalidConfig(
            f"{source}: holds lists called {listed}, and one called {name!r} is asked for; leave "
            "that one alone in the file"
        )
    return fitting[0]


def _part_named(source: str, name: str, text: str) -> str:
    """What follows the name that is asked for, up to the next name; the text itself without
    names or comments.
    """
    text = "\n".join(line.partition("#")[0] for line in text.splitlines())
    names = [*_NAME.finditer(text)]
    if not names:
        return text
    if text[: names[0].start()].strip():
        raise InvalidConfig(f"{source}: holds numbers before {names[0].group(1)!r}; remove them")
    wanted = _chosen_name(source, name, [match.group(1) for match in names])
    i = [match.group(1) for match in names].index(wanted)
    end = names[i + 1].start() if i + 1 < len(names) else len(text)
    return text[names[i].end() : end]


def _of_text(source: str, text: str) -> list[float]:
    text = _WRAPPER.sub("(", _OPTION.sub("", text))
    groups = [*_INNERMOST.finditer(text)]
    if len(groups) > 1:
        raise InvalidConfig(
            f"{source}: holds {len(groups)} lists; leave the one in the file that is meant"
        )
    inner = groups[0].group()[1:-1] if groups else text
    if groups and re.search(r"\d", text[: groups[0].start()] + text[groups[0].end() :]):
        raise InvalidConfig(f"{source}: holds numbers beside its list; remove them")
    if ";" in inner and _DECIMAL_COMMA.search(inner):
        raise InvalidConfig(
            f"{source}: has semicolons and commas inside numbers, which may be decimal commas; "
            "write decimal points"
        )
    words = [word for word in _BETWEEN.split(inner.replace(";", " ").strip("{} \n\t")) if word]
    return [_number(source, word) for word in _few(source, words)]


def _few(source: str, found: list[Any]) -> list[Any]:
    if len(found) > MOST_NUMBERS:
        raise InvalidConfig(f"{source}: holds {len(found)} numbers, more than {MOST_NUMBERS}")
    return found


def _listed(text: str) -> list[float] | None:
    """The numbers of a bracketed text, None if it is anything else."""
    words = [word for word in _BETWEEN.split(text[1:-1].strip(" ,\t\r\n")) if word]
    if not words or len(words) > MOST_NUMBERS or any(len(word) > _LONGEST for word in words):
        return None
    try:
        found = [float(word) for word in words]
    except ValueError:
        return None
    return found if all(map(math.isfinite, found)) else None


def _number(source: str, word: str) -> float:
    try:
        value = float(word) if len(word) <= _LONGEST else math.nan
    except ValueError as error:
        raise InvalidConfig(
            f"{source}: expected a list of numbers, found {word[:_LONGEST]!r}"
        ) from error
    if not math.isfinite(value):
        raise InvalidConfig(f"{source}: {word[:_LONGEST]} is not a number")
    return value
