"""A study that goes on in a wider space, or at further numbers of network calls.

A wider space has every choice of the one before, and more; then the old evaluations are
evaluations of the new space as well, on the same noise.  What changed is a new *version* of the
space: the search begins anew with what is left of the budget, from the best that earlier versions
measured and from their neighbours at other numbers of calls.  A schedule that an earlier version
measured is not measured again and costs nothing.  What each version began with is a row of
`s3search.study.database.tables.EXTENSIONS`, so that a resumed search begins with the same.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from sqlalchemy import select

from s3search.errors import InvalidConfig, InvalidSchedule, S3SearchError
from s3search.schedules.schedule import Schedule
from s3search.schedules.stretch import with_nfe
from s3search.search.edit.extend_nfe import extended
from s3search.search.questions import SEARCHING, Rung
from s3search.search.space import SpaceConfig
from s3search.search.space.config import CHOICES
from s3search.search.space.targets import ANY
from s3search.search.trial import Origin, Trial, distinct, seeded
from s3search.study.database.rows import now
from s3search.study.database.store import StudyStore, flat, open_study, space_fields
from s3search.study.database.tables import EXTENSIONS
from s3search.study.file.config import StudyConfig

_RANGES = frozenset(
    {"end_sigma", "beta", "gamma", "dc_ratio", "dualfast_coefficient", "jump_sigma"}
)
_LIMITS = {
    "coefficient_limit": 1,
    "network_shift": 1,
    "jump_modes": 1,
    "min_gap": -1,
    "data_bound": 1,
}
_MOVES = ("coefficient_sigma", "time_sigma", "changes", "mutation.")  # how children are drawn
_OWN_BEST = 8  # of a number of calls, to begin with there
_NEIGHBOURS = 4  # of each neighbouring number of calls, where there is nothing of its own
_ENOUGH = 64  # schedules looked at for these: polished ones cannot be stretched


@dataclass(frozen=True, slots=True, kw_only=True)
class Extension:
    """One version of a study's space after the first; ``spent`` is in evaluations."""

    version: int
    nfe: tuple[int, ...]  # what is searched from here on
    first_number: int  # of its proposals
    spent: float  # of the budget, by earlier versions
    warm: tuple[Trial, ...]  # what it begins with
    is_new: bool = False  # not in the database yet

    def applied(self, config: StudyConfig) -> StudyConfig:
        """What this version's search is asked for: its numbers of calls, the rest of the budget,
        random numbers of its own.
        """
        search = config.search
        if search.evaluations is not None:
            left = max(0, round(search.evaluations - self.spent))
            search = search.model_copy(update={"evaluations": left})
        seed = config.study.seed + 2**32 * (self.version - 1)
        return config.model_copy(
            update={
                "study": config.study.model_copy(update={"seed": seed}),
                "space": config.space.model_copy(update={"nfe": self.nfe}),
                "search": search,
            }
        )


def extension_of(config: StudyConfig, space: SpaceConfig) -> Extension | None:
    """The version that a launch goes on with, None for the first one; nothing is written.

    Where the space is neither the stored one nor wider that is for the store to refuse. Raises
    `InvalidConfig` where no budget is left for a wider one.
    """
    try:
        store = open_study(config.storage.url, config.study.name)
    except S3SearchError:  # new, of an older schema, or wrong: all told when it is opened to write
        return None
    with store:
        asked = space.model_dump(mode="json")
        changed = _changed(store.space, asked)
        if not changed or not all(_is_wider(*change) for change in changed):
            return newest(store)
        return _planned(store, config, {key.partition(".")[0] for key, *_ in changed})


def newest(store: StudyStore) -> Extension | None:
    """The latest version of a study's space, None where there was only one."""
    rows = store.read(
        lambda study: (
            select(EXTENSIONS)
            .where(EXTENSIONS.c.study_id == study)
            .order_by(EXTENSIONS.c.version.desc())
            .limit(1)
        )
    )
    if not rows:
        return None
    row = rows[0]
    warm = tuple(
        Trial.of(Schedule.from_dict(each), Origin.of_text(text))
        for text, each in json.loads(row["warm"]).items()
    )
    return Extension(
        version=row["version"],
        nfe=tuple(json.loads(row["nfe"])),
        first_number=row["first_number"],
        spent=row["spent"],
        warm=warm,
    )


def extension_row(extension: Extension) -> dict[str, Any]:
    """What `s3search.study.database.store.create_or_resume` adds to a study for a new version."""
    return {
        "version": extension.version,
        "nfe": json.dumps(extension.nfe),
        "first_number": extension.first_number,
        "spent": extension.spent,
        "warm": json.dumps({each.origin.text: each.schedule.to_dict() for each in extension.warm}),
        "created_at": now(),
    }


# -- what is wider -------------------------------------------------------------------------


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """(field, before, after) of what differs; numbers of tables by their paths."""
    before, after = space_fields(old, new), flat(new)
    return [(key, before.get(key), after[key]) for key in after if before.get(key) != after[key]]


def _is_wider(key: str, old: Any, new: Any) -> bool:
    """Whether a field allows all that it did; how children are drawn may be anything."""
    if key in CHOICES:
        return set(old or ()) <= set(new)
    if key in _RANGES:
        return old is None or (new is not None and new[0] <= old[0] and old[1] <= new[1])
    if key in _LIMITS:
        return bool(_LIMITS[key] * (new - old) >= 0)
    if key.startswith("noise."):
        before = [1.0, 1.0] if old is None and key == "noise.s_noise" else old
        return before is None or (new is not None and new[0] <= before[0] <= before[1] <= new[1])
    if key.startswith("ranges."):
        return bool(old is not None and new[0] <= old[0] and old[1] <= new[1])
    return key.startswith(_MOVES) or (key == "target" and new == ANY)


# -- a new version -------------------------------------------------------------------------


def _planned(store: StudyStore, config: StudyConfig, changed: set[str]) -> Extension:
    last, proposed = newest(store), store.trials()
    known = set(store.config.space.nfe)
    further = tuple(n for n in config.space.nfe if n not in known)
    is_finished = store.state == "done" and changed == {"nfe"}
    nfe = further if is_finished else config.space.nfe
    spent = _spent(store, config, proposed)
    asked = config.search.evaluations
    if asked is not None and spent > asked - 1:
        calls = ", ".join(map(str, nfe))
        raise InvalidConfig(
            f"search.evaluations: study {store.name!r} has spent {spent:.4g} of {asked}, and the "
            f"wider space is to be searched at NFE {calls}; ask for more, for example "
            f"--set search.evaluations={round(spent) + max(asked, 2)}"
        )
    version = 2 if last is None else last.version + 1
    return Extension(
        version=version,
        nfe=nfe,
        first_number=len(proposed),
        spent=spent,
        warm=_warm(store, nfe, version - 1, proposed),
        is_new=True,
    )


def _spent(store: StudyStore, config: StudyConfig, proposed: Sequence[Trial]) -> float:
    """Of the budget, in evaluations: of `s3` all images, of other searches the proposals that are
    no seeds.
    """
    if config.search.algorithm != "s3":
        return float(sum(not trial.origin.is_given for trial in proposed))
    return store.images_spent() / config.search.n_images


def _warm(
    store: StudyStore, nfe: Sequence[int], version: int, proposed: Sequence[Trial]
) -> tuple[Trial, ...]:
    """What was proposed but not measured, then the best of each number of calls that nobody
    vetoed, by the noise of the search alone; for those without any, what the neighbours' best
    become there.
    """
    nfe_of = {trial.id: trial.nfe for trial in proposed}
    measured = {row.schedule_id for row in store.measured() if row.rung in SEARCHING}
    found = [
        Trial.of(trial.schedule, seeded(f"unfinished {trial.number}"))
        for trial in proposed
        if trial.id not in measured and trial.nfe in nfe
    ]
    values = store.values(Rung.SEARCH, store.config.search.n_images)
    ranked: dict[int, list[str]] = {}
    vetoed = store.vetoes()
    loss = store.config.direction.loss
    worked = sorted((loss(v), i) for i, v in values.items() if v is not None and i not in vetoed)
    for _, schedule_id in worked:
        ranked.setdefault(nfe_of[schedule_id], []).append(schedule_id)
    for n in nfe:
        if n in ranked:
            best = [store.schedule(i) for i in ranked[n][:_OWN_BEST]]
        else:
            best = list(_from_neighbours(store, ranked, n))
        for rank, schedule in enumerate(best, start=1):
            found.append(Trial.of(schedule, seeded(f"space {version}, NFE {n}, {rank}")))
    return distinct(found)


def _from_neighbours(
    store: StudyStore, ranked: Mapping[int, Sequence[str]], nfe: int
) -> Iterator[Schedule]:
    """The winner with fewer calls, extended, and the best of both sides, stretched."""
    fewer = [max(n for n in ranked if n < nfe)] if any(n < nfe for n in ranked) else []
    more = [min(n for n in ranked if n > nfe)] if any(n > nfe for n in ranked) else []
    for n in fewer:
        winner = extended(store.schedule(ranked[n][0]), nfe)
        if winner is not None:
            yield winner
    for n in (*fewer, *more):
        some = (store.schedule(i) for i in ranked[n][:_ENOUGH])
        yield from islice(_stretched(some, nfe), _NEIGHBOURS)


def _stretched(schedules: Iterable[Schedule], nfe: int) -> Iterator[Schedule]:
    """Those that can be, which polished ones cannot."""
    for schedule in schedules:
        try:
            yield with_nfe(schedule, nfe).schedule
        except InvalidSchedule:
            continue
