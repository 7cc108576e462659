"""The types of a space's choices: names of what is registered, and kinds that may be absent."""

from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BeforeValidator, PlainSerializer

from s3search.errors import nearest
from s3search.rules import RelaxationKind, families, solvers
from s3search.rules.compensation import COMPENSATIONS
from s3search.schedules.published.listed import LISTED_SOLVERS
from s3search.schedules.schedule import CorrectorKind

NONE = "none"

Kind = TypeVar("Kind", bound=StrEnum)


def word_of(kind: StrEnum | None) -> str:
    """The word for a kind in files, "none" for its absence."""
    return NONE if kind is None else kind.value


def _known(what: str, name: str, names: Iterable[str]) -> str:
    """The name itself; raises ValueError for one that is not among ``names``."""
    names = tuple(names)
    if name not in names:
        raise ValueError(f"there is no {what} {name!r}; {nearest(name, names)}")
    return name


def _kind_of_word(what: str, kinds: type[Kind]) -> Callable[[Any], Kind | None]:
    def parsed(word: Any) -> Kind | None:
        if word is None or word == NONE:
            return None
        return kinds(_known(what, str(word), (NONE, *(kind.value for kind in kinds))))

    return parsed


SolverName = Annotated[str, AfterValidator(lambda name: _known("solver", name, solvers()))]
"""A rule that is drawn and mutated into."""

FamilyName = Annotated[str, AfterValidator(lambda name: _known("family", name, families()))]
"""Rules that children may inherit although the Taylor choices cannot write them."""

ListedSolverName = Annotated[
    str, AfterValidator(lambda name: _known("solver on a list", name, LISTED_SOLVERS))
]
"""A solver of other programs whose levels are searched."""

CompensationName = Annotated[
    str, AfterValidator(lambda name: _known("compensation", name, COMPENSATIONS))
]
"""What may replace the newest prediction before a step uses it."""

CorrectorChoice = Annotated[
    CorrectorKind | None,
    BeforeValidator(_kind_of_word("corrector", CorrectorKind)),
    PlainSerializer(word_of),
]
"""What may follow a predictor, None for nothing."""

RelaxationChoice = Annotated[
    RelaxationKind | None,
    BeforeValidator(_kind_of_word("relaxation", RelaxationKind)),
    PlainSerializer(word_of),
]
"""A factor on the first derivative, None for none."""
