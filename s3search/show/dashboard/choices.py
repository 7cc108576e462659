"""What the best schedules of a search have in common, step by step."""

import math
from collections import Counter
from dataclasses import dataclass

import pandas as pd

from s3search.schedules.schedule import Schedule, Step
from s3search.search.questions import Rung
from s3search.show.pictures import describe_rule
from s3search.study.database.store import StudyStore

_SHARE = 0.05
_LEAST, _MOST = 5, 200  # of the best schedules


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """How often each choice was made at each step by the best schedules of one NFE."""

    nfe: int
    n_schedules: int
    n_measured: int
    names: tuple[str, ...]  # the most frequent first
    shares: tuple[tuple[float, ...], ...]  # (choices, steps), 0 to 1 of the schedules


def choices_of(store: StudyStore, frame: pd.DataFrame, nfe: int) -> Choices | None:
    """The choices of the best 5 % of the schedules that the search found and measured whole, but
    for the vetoed (5 at least, 200 at most); None where it measured none.
    """
    found = frame[
        (frame["rung"] == Rung.SEARCH.value)
        & (frame["state"] == "complete")
        & (frame["nfe"] == nfe)
        & ~frame["is_baseline"]
        & ~frame["vetoed"]
    ].sort_values(["loss", "id"])
    if found.empty:
        return None
    n_best = min(max(_LEAST, math.ceil(_SHARE * len(found))), _MOST, len(found))
    schedules = [store.schedule(each) for each in found["schedule_id"].head(n_best)]
    return counted(schedules, nfe=nfe, n_measured=len(found))


def counted(schedules: list[Schedule], *, nfe: int, n_measured: int) -> Choices:
    """The choices of these schedules; a shorter one makes none at the steps that it lacks."""
    counts: Counter[tuple[str, int]] = Counter(
        (choice(step), i) for schedule in schedules for i, step in enumerate(schedule.steps)
    )
    totals: Counter[str] = Counter()
    for (name, _), n in counts.items():
        totals[name] += n
    names = tuple(sorted(totals, key=lambda name: (-totals[name], name)))
    n_steps = max(schedule.n_steps for schedule in schedules)
    return Choices(
        nfe=nfe,
        n_schedules=len(schedules),
        n_measured=n_measured,
        names=names,
        shares=tuple(
            tuple(counts[name, i] / len(schedules) for i in range(n_steps)) for name in names
        ),
    )


def choice(step: Step) -> str:
    """A step in a few words, without its numbers."""
    title, extrapolated, _ = describe_rule(step.predictor)
    corrected = "" if step.corrector is None else f" + {step.corrector.kind.value}"
    added = "" if step.noise is None else " + noise"
    return f"{title}, {extrapolated}, {step.predictor.extent}{corrected}{added}"
