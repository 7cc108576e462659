"""How many of the published configurations a study has looked at, and whether they are enough to
say that a schedule is better than the published ones.

A found schedule may be called better than the published ones only where all of this holds:

1. every stock default is validated: what the model's own pipeline, diffusers and k-diffusion run
   at so many calls unless told otherwise;
2. every published solver that makes so many calls has a validated schedule, or one that makes the
   same images;
3. of N known configurations so many, n, were measured whole on the search's noise that one of the
   best tenth, k = max(1, N // 10), is among them 19 times in 20 even if they were measured in an
   order that says nothing:  C(N - k, n) / C(N, n) <= 0.05.  That is 26 of 86, all of 10.

What there is, a launch notes in the study (`BASELINES`) before anything is proposed.  A study
without the note, begun by an earlier release, covers nothing.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import pandas as pd

from s3search.processes import NoiseProcess
from s3search.schedules.published.baselines import (
    published_solvers,
    published_solvers_of_before,
)
from s3search.schedules.schedule import Schedule
from s3search.search.questions import Rung
from s3search.search.trial import OriginKind, schedule_key
from s3search.study.database.store import StudyStore
from s3search.study.results.frame import Scored

BASELINES = "baselines"
"""The kind of the notes of a launch, one for each number of calls: how many configurations are
``known``, the labels of the ``stock`` defaults, the published ``solvers`` (not in notes of
earlier releases), and why other stock ones are ``missing``.
"""

_CHANCE = 0.05  # of missing the best share, all the same
_BEST = 10  # the best tenth


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """What a study has measured of what is published, at one number of calls."""

    measured: int  # configurations, whole, on the search's noise
    known: int | None = None  # None: not noted
    stock: tuple[str, ...] = ()  # labels of the stock defaults
    stock_missing: tuple[str, ...] = ()  # those that are not validated
    solvers_missing: tuple[str, ...] = ()  # published solvers of which nothing is validated
    without: Mapping[str, str]  # stock solvers without a schedule of their own here: why

    @property
    def needed(self) -> int | None:
        """How many of the known configurations must be measured."""
        return None if self.known is None else least_measured(self.known)

    @property
    def gaps(self) -> tuple[str, ...]:
        """What is missing before a schedule may be called better than the published ones."""
        if self.known is None or self.needed is None:
            return ("which published configurations there are was not recorded",)
        found = []
        if self.measured < self.needed:
            found.append(f"{self.measured} of {self.known} configurations measured")
            found[-1] += f", {self.needed} needed"
        if self.stock_missing:
            found.append(f"not validated among the stock defaults: {listed(self.stock_missing)}")
        if self.solvers_missing:
            found.append(f"no validated schedule of {listed(self.solvers_missing)}")
        return tuple(found)

    @property
    def remedy(self) -> str:
        """What would close the gaps."""
        if self.known is None:
            return "a new study records it"
        steps = ["run `s3search compare STUDY --schedulers`"] if self.stock_missing else []
        if len(self.gaps) > len(steps):
            steps.append("raise the budget and launch again")
        return ", and ".join(steps)

    @property
    def counted(self) -> str:
        """Of how many the best published one is the best, in words."""
        known = "" if self.known is None else f" ({max(self.known, self.measured)} known)"
        return f"{self.measured} published configuration{_s(self.measured)} measured{known}"

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(self), "needed": self.needed, "is_enough": not self.gaps}


def coverage_of(
    store: StudyStore, frame: pd.DataFrame, scored: Sequence[Scored], nfe: int
) -> Coverage:
    """What is covered at ``nfe``, of whose validated schedules are ``scored``."""
    is_it = frame["is_baseline"] & (frame["nfe"] == nfe) & (frame["state"] == "complete")
    whole = frame[is_it & (frame["rung"] == Rung.SEARCH.value)]
    measured = int(whole["schedule_id"].nunique())
    notes = [note for _, note in store.notes(BASELINES) if note["nfe"] == nfe]
    if not notes:
        return Coverage(measured=measured, without={})
    note, validated = notes[-1], {row.name for row in scored}
    return Coverage(
        measured=measured,
        known=note["known"],
        stock=tuple(note["stock"]),
        stock_missing=tuple(label for label in note["stock"] if label not in validated),
        solvers_missing=_solvers_missing(store, scored, nfe, note),
        without=note["missing"],
    )


@lru_cache(maxsize=1024)
def least_measured(known: int) -> int:
    """How many of ``known`` configurations, drawn at random, hold one of the best tenth 19 times
    in 20.

    >>> least_measured(86), least_measured(10)
    (26, 10)
    """
    if known < 2 * _BEST:  # one is the best tenth, and may be the last
        return known
    best = known // _BEST
    return next(
        n for n in range(known + 1) if math.comb(known - best, n) <= _CHANCE * math.comb(known, n)
    )


def listed(names: Sequence[str], most: int = 4) -> str:
    """The first names, and how many more there are."""
    more = [f"{len(names) - most} more"] if len(names) > most else []
    return ", ".join([*names[:most], *more])


def _solvers_missing(
    store: StudyStore, scored: Sequence[Scored], nfe: int, note: Mapping[str, Any]
) -> tuple[str, ...]:
    """Published solvers none of whose schedules is validated, under whatever name; those of
    earlier releases where the note names none.
    """
    if not scored:
        return ()
    made = min(scored, key=lambda row: row.origin.kind is not OriginKind.SEARCH)
    process = store.schedule(made.schedule_id).process
    solvers = _published(process, nfe, of_before="solvers" not in note)
    baselines = [row for row in scored if row.is_baseline]
    unseen = set(solvers) - {row.origin.solver for row in baselines}
    if not unseen:
        return ()
    validated = {schedule_key(store.schedule(row.schedule_id)) for row in baselines}
    return tuple(
        solver
        for solver, schedules in solvers.items()
        if solver in unseen and validated.isdisjoint(map(schedule_key, schedules))
    )


@lru_cache(maxsize=8)
def _published(
    process: NoiseProcess, nfe: int, *, of_before: bool
) -> Mapping[str, Sequence[Schedule]]:
    """The published schedules by their solvers."""
    made = published_solvers_of_before if of_before else published_solvers
    found: dict[str, list[Schedule]] = {}
    for each in made(process, nfe):
        found.setdefault(each.solver, []).append(each.schedule)
    return found


def _s(count: int) -> str:
    return "" if count == 1 else "s"
