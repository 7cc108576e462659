"""Every error that s3search raises on purpose.

S3SearchError
├── InvalidSchedule         (ValueError)    a schedule or its JSON breaks a rule of the format
├── InvalidConfig           (ValueError)    a study file, preset or command-line value is wrong
├── IncompatibleStatistics  (ValueError)    two sets of statistics cannot be merged or compared
├── EvaluationFailed        (RuntimeError)  one schedule could not be measured; the search goes on
├── StudyConflict           (RuntimeError)  the database and the request contradict each other
│   └── LeaseLost                           another driver took the study over; this one stops
└── WorkersUnavailable      (RuntimeError)  the pool cannot give the workers that were asked for

A message says what was asked, what was found and what would do.
"""

import difflib
import traceback
from collections.abc import Iterable
from dataclasses import dataclass

_TRACEBACK_CHARACTERS = 2000
_LONGEST_MESSAGE = 2000
_END_OF_MESSAGE = 500  # letters of a longer one's end, where it says what would do


class S3SearchError(Exception):
    """Base of the family; the command line turns each into one sentence and an exit code."""

    def __str__(self) -> str:
        """The message, without its middle where it quotes more of a file than anyone reads."""
        message = super().__str__()
        if len(message) <= _LONGEST_MESSAGE:
            return message
        begin = message[: _LONGEST_MESSAGE - _END_OF_MESSAGE - 5]
        return f"{begin} ... {message[-_END_OF_MESSAGE:]}"


class InvalidSchedule(S3SearchError, ValueError):
    """A schedule breaks a rule of the format; the message starts with the path of the field."""


class InvalidConfig(S3SearchError, ValueError):
    """A study file, preset, plug-in path or command-line value is wrong."""


class IncompatibleStatistics(S3SearchError, ValueError):
    """Two sets of feature statistics cannot be merged or compared."""


class EvaluationFailed(S3SearchError, RuntimeError):
    """One schedule could not be measured (non-finite images, out of memory, ...)."""


class StudyConflict(S3SearchError, RuntimeError):
    """The database holds something else than what was asked for."""


class LeaseLost(StudyConflict):
    """Another driver took the study over; whoever sees this must not write."""


class WorkersUnavailable(S3SearchError, RuntimeError):
    """The pool cannot give the workers that were asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a task has no reply: the exception's type name, its message, its traceback's tail."""

    kind: str
    message: str
    traceback: str

    @property
    def sentence(self) -> str:
        """The kind and the message, as the database keeps them."""
        return f"{self.kind}: {self.message}"


def failure_from_exception(error: BaseException) -> Failure:
    """The picklable rest of an exception, fit for a database column."""
    lines = "".join(traceback.format_exception(error))
    return Failure(
        kind=type(error).__name__,
        message=str(error),
        traceback=lines[-_TRACEBACK_CHARACTERS:],
    )


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint that names the nearest known word, or all of them: ``did you mean 'order'?``."""
    words = sorted(known)
    match = difflib.get_close_matches(name, words, n=1, cutoff=0.5)
    return f"did you mean {match[0]!r}?" if match else "known: " + ", ".join(words)
