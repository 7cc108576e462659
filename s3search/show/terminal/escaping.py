"""What comes from outside, made harmless on its way to a terminal: the one place where it is.

Names, notes, keys of files and messages of other programs may hold control characters, which move
the cursor, change the title or answer in the operator's name, and characters that turn the order
of what stands beside them.  They are written as Python writes them, ``\\x1b``.  So is what the
terminal's encoding cannot say.
"""

import logging
import sys
import traceback
import unicodedata
import warnings
from collections.abc import Iterable
from typing import Any, TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

_PLAIN = frozenset("\n\t")
_UNSAFE = frozenset({"Cc", "Cs", "Zl", "Zp"})  # control, half a character, ends of lines
_TURNING = frozenset("\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def escaped(text: str) -> str:
    """A text without what a terminal would act on.

    >>> escaped("blurred\\x1b[2J")
    'blurred\\\\x1b[2J'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_shown(character) for character in text)


class SafeConsole(Console):
    """A console of rich that writes what it is given as it stands: no markup, no emoji by name,
    and no control character but its own.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Every piece of what is to be printed."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(escaped(segment.text), segment.style)


def guard_streams() -> None:
    """Makes this process's warnings, log and tracebacks as harmless, and its output never fail on
    an encoding.
    """
    for stream in (sys.stdout, sys.stderr):
        _never_fail(stream)
    logging.lastResort = _Escaping(logging.WARNING)
    if not isinstance(warnings.formatwarning, _Formatting):
        warnings.formatwarning = _Formatting(warnings.formatwarning)
    sys.excepthook = _say_traceback


class _Escaping(logging.Handler):
    """The handler of last resort, which finds stderr when it writes."""

    def emit(self, record: logging.LogRecord) -> None:
        """Writes a message on a line."""
        sys.stderr.write(escaped(self.format(record)) + "\n")


class _Formatting:
    """`warnings.formatwarning`, its text escaped."""

    def __init__(self, form: Any) -> None:
        self._form = form

    def __call__(self, *args: Any, **kwargs: Any) -> str:
        return escaped(self._form(*args, **kwargs))


def _say_traceback(*error: Any) -> None:
    sys.stderr.write(escaped("".join(traceback.format_exception(*error))))


def _never_fail(stream: TextIO) -> None:
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")


def _shown(character: str) -> str:
    is_safe = unicodedata.category(character) not in _UNSAFE and character not in _TURNING
    if is_safe or character in _PLAIN:
        return character
    return character.encode("unicode_escape").decode()
