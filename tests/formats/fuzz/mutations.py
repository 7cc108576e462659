"""What is done to valid bytes, texts and trees of values.

Everything is a function of a `random.Random`, so that an input is known by its number.
"""

import json
import math
import random
import re
from collections.abc import Callable, Mapping
from typing import Any

CANARY = "tests.formats.fuzz.canary:run"
"""An import path that no reader may follow."""

_WORDS = (
    "",
    "0",
    "-0.0",
    "-1",
    "1",
    "0.5",
    "1e-320",
    "1e308",
    "-1e308",
    "1e999",
    "nan",
    "inf",
    "-Infinity",
    "NaN",
    "2147483648",
    "9223372036854775808",
    "340282366920938463463374607431768211456",
    "9" * 400,
    "9" * 5000,
    "true",
    "null",
    "''",
    '"',
    '""',
    '"\\ud800"',
    "[]",
    "{}",
    "[[[]]]",
    "[" * 900 + "]" * 900,
    "[" * 100_000,
    "(" * 300 + ")" * 300,
    "1979-05-27T07:32:00Z",
    "0x_",
    "1j",
    "1_000",
    "\u0665",  # a digit of another script
    "x" * 3000,
    f'"{CANARY}"',
    "__import__('os').system('true')",
    "\0",
    "\x1b[2J",
)
"""What takes the place of a word in a text."""

_LONGEST = 20_000  # letters of a text that is changed again
_TOKEN = re.compile(r"[-+]?\d[\w.+-]*|\"[^\"\n]*\"|'[^'\n]*'|[A-Za-z_]\w*|[^\s\w]")
_RAW = "@@raw "  # begins a string that stands in JSON without its quotes


def leaf(chance: random.Random) -> Any:
    """A value that few readers ask for."""
    return chance.choice(
        (
            None,
            True,
            False,
            0,
            -1,
            1,
            2,
            17,
            0.5,
            -0.5,
            1e308,
            -1e308,
            5e-324,
            math.nan,
            math.inf,
            -math.inf,
            2**31,
            2**63,
            -(2**64),
            10**30,
            10**400,
            "",
            " ",
            "nan",
            "0.5",
            "x" * 3000,
            "\0",
            "\ud800",
            "../../../etc/passwd",
            CANARY,
            [],
            {},
            [[]],
            [None],
            [0.5, "x"],
            {"": None},
            {"type": "edm"},
            [chance.random()] * 3000,
            [[1.0, 2.0], [3.0]],
        )
    )


def _text_alone(chance: random.Random) -> str:
    """A value that only a text can hold: Python would not write it."""
    return _RAW + chance.choice(
        ("1e999", "9" * 5000, "[" * 900 + "]" * 900, "[" * 50_000 + "]" * 50_000, "{" * 50_000)
    )


def spoilt(
    chance: random.Random,
    value: Any,
    leaf_of: Callable[[random.Random], Any] = leaf,
) -> Any:
    """A tree of dicts, lists and leaves with a few of its places changed."""
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        value = _changed(chance, value, leaf_of)
    return value


def _changed(chance: random.Random, value: Any, leaf_of: Callable[[random.Random], Any]) -> Any:
    goes_on = chance.random() < 0.85
    if isinstance(value, Mapping) and value and goes_on:
        key = chance.choice([*value])
        match chance.randrange(10):
            case 0:
                return {k: v for k, v in value.items() if k != key}
            case 1:
                other = chance.choice(("", "x", f"{key}s", "type", "__class__", "\ud800"))
                return {other if k == key else k: v for k, v in value.items()}
            case 2:
                return {**value, key: value[chance.choice([*value])]}
        return {**value, key: _changed(chance, value[key], leaf_of)}
    if isinstance(value, list | tuple) and value and goes_on:
        i = chance.randrange(len(value))
        match chance.randrange(10):
            case 0:
                return [*value[:i], *value[i + 1 :]]
            case 1:
                return [*value[:i], value[i], *value[i:]]
            case 2:
                return chance.sample([*value], len(value))
        return [*value[:i], _changed(chance, value[i], leaf_of), *value[i + 1 :]]
    match chance.randrange(8):
        case 0 if isinstance(value, int | float) and not isinstance(value, bool):
            return _moved(chance, value)
        case 1:
            return [value]
        case 2:
            return {"x": value}
    return leaf_of(chance)


def _moved(chance: random.Random, number: float) -> Any:
    factor = chance.choice((-1, 0.5, 2, 10, 1000, 1 + 1e-12, 1e200))
    try:
        return number * factor
    except OverflowError:
        return number


def json_of_tree(chance: random.Random, value: Any) -> bytes:
    """The JSON of a spoilt tree, and at times of what JSON alone can say."""
    changed = spoilt(chance, value)
    if chance.random() < 0.1:
        changed = spoilt(chance, changed, _text_alone)
    made = json.dumps(changed, ensure_ascii=chance.random() < 0.8)
    made = re.sub(rf'"{_RAW}([^"]*)"', r"\1", made)
    return made.encode("utf-8", "surrogatepass")


def reworded(chance: random.Random, text: str) -> bytes:
    """A text with some of its words, letters or lines changed."""
    for _ in range(chance.choice((1, 1, 2, 4))):
        text = _reworded_once(chance, text[:_LONGEST])
    return text.encode("utf-8", "surrogatepass")


def _reworded_once(chance: random.Random, text: str) -> str:
    lines = text.split("\n")
    i = chance.randrange(len(lines))
    match chance.randrange(12):
        case 0:
            return "\n".join([*lines[:i], *lines[i + 1 :]])
        case 1:
            return "\n".join([*lines[:i], lines[i], *lines[i:]])
        case 2:
            return "\n".join(chance.sample(lines, len(lines)))
        case 3:
            at = chance.randrange(len(text) + 1)
            return text[:at] + chance.choice(_WORDS) + text[at:]
        case 4:
            return text.replace("\n", chance.choice(("\r\n", "\r", "\u2028", "")))
        case 5:
            return text * chance.choice((0, 2, 50))
    tokens = [*_TOKEN.finditer(text)]
    if not tokens:
        return chance.choice(_WORDS)
    token = chance.choice(tokens)
    word = chance.choice(_WORDS) if chance.random() < 0.7 else chance.choice(tokens).group()
    return text[: token.start()] + word + text[token.end() :]


def damaged(chance: random.Random, content: bytes) -> bytes:
    """Bytes that were cut, turned, doubled, or written in another encoding."""
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        content = _damaged_once(chance, content)
    return content


def _damaged_once(chance: random.Random, content: bytes) -> bytes:
    n = len(content)
    at = chance.randrange(n + 1)
    to = min(n, at + int(2 ** chance.uniform(0, 8)))
    match chance.randrange(14):
        case 0:
            return content[:at]
        case 1:
            return content[at:]
        case 2:
            return content[:at] + content[to:]
        case 3:
            return content[:to] + content[at:]
        case 4:
            return content[:at] + chance.randbytes(to - at) + content[to:]
        case 5:
            return content[:at] + bytes([chance.choice((0, 255))]) * (to - at) + content[to:]
        case 6:
            return content[:at] + chance.randbytes(chance.randrange(1, 9)) + content[at:]
        case 7:
            return chance.choice((b"", b"\xef\xbb\xbf" + content, b"\0", b"\n", content + content))
        case 8:
            text = content.decode("utf-8", "replace")
            encoding = chance.choice(("utf-16", "utf-16-le", "utf-32", "utf-7", "utf-8-sig"))
            return text.encode(encoding, "replace")
        case 9:  # a number of the format: a length, an offset, a size
            size = chance.choice((1, 2, 4, 8))
            number = chance.choice((0, 1, 2 ** (8 * size - 1), 2 ** (8 * size) - 1))
            order = chance.choice(("little", "big"))
            return content[:at] + number.to_bytes(size, order) + content[at + size :]
    turned = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 8))):
        if turned:
            turned[chance.randrange(len(turned))] ^= 1 << chance.randrange(8)
    return bytes(turned)
