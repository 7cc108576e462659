"""What our own pages say, from the database alone and kept until it changes.

A study's page takes seconds to compute at ten thousand trials and is asked for again and again:
it is kept with a stamp of the study's tables, and computed anew when the stamp has changed.
"""

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import sqlalchemy as sa
from sqlalchemy import select

from s3search.errors import StudyConflict
from s3search.schedules.schedule import Schedule
from s3search.search.questions import Rung
from s3search.study.database.engine import connected
from s3search.study.database.store import StudyStore, open_study
from s3search.study.database.tables import EVALUATIONS, JOBS, NOTES, SCHEDULES, STUDIES
from s3search.study.results.exported import ranked
from s3search.study.results.frame import evaluations_frame
from s3search.study.vetoes import vetoes_of

PAGE_SIZE = 100
_MOST_KEPT = 256

_Key = tuple[str, str]
_Stamp = tuple[object, ...]

PATIENCE = 2.0
"""What follows a running study may be older by so many times its seconds of processor:
a page that asks again and again keeps a third of a core busy at most.
"""


@dataclass(frozen=True, slots=True)
class _Found:
    stamp: _Stamp
    value: Any
    until: float  # on the clock: when it may be computed anew


class Kept:
    """Results by what they are of and the study's stamp; one thread computes, others wait."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._lock = threading.Lock()
        self._found: dict[_Key, _Found] = {}

    def of(
        self,
        kind: str,
        study: str,
        compute: Callable[[StudyStore, pd.DataFrame], Any],
        *,
        patience: float = 0.0,
    ) -> Any:
        """``compute(store, frame)`` of a study, unless it is known or was computed of late (see
        `PATIENCE`); raises `StudyConflict` for a study that is not there.
        """
        with self._lock:
            stamp = _stamp(self._url, study)
            known = self._found.get((kind, study))
            if known is not None and (known.stamp == stamp or time.monotonic() < known.until):
                return known.value
            began = time.thread_time()
            with open_study(self._url, study) as store:
                found = compute(store, evaluations_frame(store))
            until = time.monotonic() + patience * (time.thread_time() - began)
            self._found[kind, study] = _Found(stamp, found, until)
            while len(self._found) > _MOST_KEPT:
                self._found.pop(next(iter(self._found)))
            return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """A schedule among those of its NFE."""

    rank: int
    schedule_id: str
    origin: str
    is_baseline: bool
    value: float  # at the search rung
    held_out: float | None
    remark: str = ""  # whether it is exported

    def is_shown(self, kind: str, text: str) -> bool:
        """Whether it is of a kind ("found", "published"; else of any) and has a text in its origin
        or at the beginning of its id.
        """
        is_kind = {"found": not self.is_baseline, "published": self.is_baseline}.get(kind, True)
        words = text.strip().lower()
        return is_kind and (words in self.origin.lower() or self.schedule_id.startswith(words))


def ranking(
    frame: pd.DataFrame, n_validation: int, remarks: Mapping[str, str]
) -> dict[int, list[Ranked]]:
    """By NFE every schedule that was measured whole and not vetoed, the best first; ``remarks``
    by schedule id say what is exported.
    """
    done = frame[(frame["state"] == "complete") & ~frame["vetoed"]]
    is_held_out = (done["rung"] == Rung.VALIDATION.value) & (done["n_images"] == n_validation)
    held_out = done[is_held_out].set_index("schedule_id")["value"].to_dict()
    whole = ranked(frame)
    found: dict[int, list[Ranked]] = {}
    columns = ("nfe", "schedule_id", "origin", "is_baseline", "value")
    for nfe, schedule_id, origin, is_baseline, value in zip(
        *(whole[name] for name in columns), strict=True
    ):
        rows = found.setdefault(int(nfe), [])
        rows.append(
            Ranked(
                rank=len(rows) + 1,
                schedule_id=schedule_id,
                origin=origin,
                is_baseline=bool(is_baseline),
                value=float(value),
                held_out=held_out.get(schedule_id),
                remark=remarks.get(schedule_id, ""),
            )
        )
    return found


def schedule_of(url: str, prefix: str) -> Schedule:
    """The one schedule whose id begins so; raises `StudyConflict` for none or several."""
    query = select(SCHEDULES).where(SCHEDULES.c.id.like(f"{prefix}%")).limit(2)
    with connected(url) as connection:
        rows = connection.execute(query).all()
    if len(rows) != 1:
        found = "several schedules" if rows else "no schedule"
        raise StudyConflict(f"there is {found} in this database whose id begins with {prefix}")
    return Schedule.from_dict(json.loads(rows[0].content))


def measurements(url: str, schedule_id: str) -> list[dict[str, Any]]:
    """Every evaluation of a schedule, with its study's name."""
    query = (
        select(EVALUATIONS, STUDIES.c.name.label("study"))
        .join(STUDIES, STUDIES.c.id == EVALUATIONS.c.study_id)
        .where(EVALUATIONS.c.schedule_id == schedule_id)
        .order_by(STUDIES.c.name, EVALUATIONS.c.id)
    )
    with connected(url) as connection:
        return [dict(row) for row in connection.execute(query).mappings()]


def optuna_ids(url: str) -> dict[str, int]:
    """Optuna's numbers of the studies, by name."""
    with connected(url) as connection:
        rows = connection.execute(sa.text("select study_name, study_id from studies")).all()
    return {row[0]: row[1] for row in rows}


def _stamp(url: str, study: str) -> _Stamp:
    """What is different once anything of the study is."""
    own = select(STUDIES.c.id, STUDIES.c.state, STUDIES.c.updated_at).where(
        STUDIES.c.name == study
    )
    with connected(url) as connection:
        row = connection.execute(own).first()
        if row is None:
            return ()
        counts = [
            connection.execute(
                select(sa.func.count(), sa.func.max(table.c.id)).where(table.c.study_id == row.id)
            ).one()
            for table in (EVALUATIONS, JOBS, NOTES)
        ]
        vetoed = tuple(vetoes_of(connection, study).values())
        return (*row, *(tuple(each) for each in counts), vetoed)
