"""Which trial is exported, and which one ranks first on the search's own noise.

Optuna knows only the search's own noise: its Best Trial is the lowest distance there, which the
search has chosen among hundreds for being low.  What is exported is chosen on held-out noise.
Where the two are not the same schedule, every ranking says so, and so do both trials in Optuna
(the attribute `s3search.study.optuna.marks.EXPORTED`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from s3search.search.questions import Rung
from s3search.search.space.targets import objection, runtime_of
from s3search.study.database.store import StudyStore
from s3search.study.results.frame import Scored, evaluations_frame, validated


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedTrial:
    """The schedule that is exported at one number of calls, and the first of the search."""

    nfe: int
    schedule_id: str
    name: str
    trial: int | None  # Optuna's number; None where Optuna has no such trial
    rank: int  # on the search's own noise, from 1
    first_id: str
    first_trial: int | None

    @property
    def is_first(self) -> bool:
        """Whether it is the first on the search's own noise as well."""
        return self.rank == 1

    @property
    def says(self) -> str:
        """Who is exported, in a sentence."""
        own = f"exported is {_trial(self.trial, self.schedule_id)} ({self.name}), "
        if self.is_first:
            return f"{own}first on the search's own noise too"
        return (
            f"{own}chosen on held-out noise; on the search's own noise it ranks {self.rank}, and "
            f"{_trial(self.first_trial, self.first_id)} first, which is Optuna's Best Trial"
        )

    @property
    def remarks(self) -> dict[str, str]:
        """What rankings and trials say, by schedule id."""
        if self.is_first:
            return {self.schedule_id: "exported"}
        other = _trial(self.trial, self.schedule_id)
        return {
            self.schedule_id: "exported, chosen on held-out noise",
            self.first_id: f"ranked first by the search's noise; the exported one is {other}",
        }


def exported_first(store: StudyStore, scored: Sequence[Scored]) -> list[Scored]:
    """Validated schedules, of each number of calls first the one that is exported: the first that
    the study's target can express and that breaks no guard, or that there is.
    """
    runtime, solver = runtime_of(store.space.get("target")), store.space.get("solver")

    def runs(row: Scored) -> bool:
        return (
            not row.broken and objection(runtime, store.schedule(row.schedule_id), solver) is None
        )

    found: list[Scored] = []
    for nfe in sorted({row.nfe for row in scored}):
        rows = [row for row in scored if row.nfe == nfe]
        first = next(filter(runs, rows), rows[0])
        found += [first, *(row for row in rows if row is not first)]
    return found


def exported_trial(store: StudyStore, frame: pd.DataFrame, winner: Scored) -> ExportedTrial:
    """What is exported of the winner's number of calls."""
    ids = ranked(frame, winner.nfe)["schedule_id"].tolist()
    if winner.schedule_id not in ids:  # it breaks a guard on the search's noise alone
        ids.append(winner.schedule_id)
    numbers = store.trial_numbers([winner.schedule_id, ids[0]])
    return ExportedTrial(
        nfe=winner.nfe,
        schedule_id=winner.schedule_id,
        name=winner.name,
        trial=numbers.get(winner.schedule_id),
        rank=ids.index(winner.schedule_id) + 1,
        first_id=ids[0],
        first_trial=numbers.get(ids[0]),
    )


def ranked(frame: pd.DataFrame, nfe: int | None = None) -> pd.DataFrame:
    """Every schedule that was measured whole on the search's noise, breaks no guard and nobody
    vetoed, the best first, by number of calls.
    """
    is_it = (frame["state"] == "complete") & (frame["rung"] == Rung.SEARCH.value)
    is_it &= ~frame["vetoed"] & (frame["is_baseline"] | ~frame["breaks_guard"])
    if nfe is not None:
        is_it &= frame["nfe"] == nfe
    return frame[is_it].sort_values(["nfe", "loss", "id"])


def remarks_of(store: StudyStore, frame: pd.DataFrame) -> dict[str, str]:
    """What rankings and trials say of being exported, by schedule id."""
    winners: dict[int, Scored] = {}
    for row in exported_first(store, validated(frame, store.config)):
        winners.setdefault(row.nfe, row)
    exported = [exported_trial(store, frame, own) for own in winners.values()]
    return {key: text for own in exported for key, text in own.remarks.items()}


def mark_exported(store: StudyStore) -> None:
    """Marks in Optuna what is exported, and what ranks first there without being it."""
    store.mirror.mark(remarks_of(store, evaluations_frame(store)))


def _trial(number: int | None, schedule_id: str) -> str:
    return f"schedule {schedule_id[:8]}" if number is None else f"trial {number}"
