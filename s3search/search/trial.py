"""What a search proposes: a schedule, where it comes from, and whose child it is.

A long search is run again from its beginning after an interruption, and to read or compile a
schedule takes a millisecond.  So a `Trial` has its id, number of calls and plan key at hand, and
its schedule is read only when somebody looks at it.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from s3search.processes import NoiseProcess
from s3search.schedules.schedule import Schedule
from s3search.solvers.plan import Plan, compile_plan

# of a plan's coefficients; rounding in double precision stays near 1e-13
# NOTE: keys are stored (`s3search.study.database.tables.SCHEDULES`); a change here takes a
# migration that clears them
_KEY_DECIMALS = 8


class OriginKind(StrEnum):
    """Who made a schedule."""

    PUBLISHED = "published"  # a solver of the literature, at one spacing and end
    PIPELINE = "pipeline"  # what the model's own pipeline runs
    STOCK = "stock"  # a solver of diffusers or k-diffusion with its default spacing
    SEED = "seed"  # a file of the user's, or what an earlier search found
    SEARCH = "search"


BASELINE, SEED = "baseline: ", "seed: "
"""What the stored forms of origins begin with, for queries that look for them."""

_OF_PIPELINE = " of the pipeline"
_LIBRARIES = ("diffusers ", "k-diffusion ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a schedule comes from; ``label`` is for people.

    ``solver`` names the solver of a published one, ``variant`` its spacing and end.
    """

    kind: OriginKind
    label: str
    solver: str | None = None
    variant: str | None = None

    @property
    def is_baseline(self) -> bool:
        """Whether it is what a search has to beat."""
        return self.kind is OriginKind.PUBLISHED or self.is_stock

    @property
    def is_stock(self) -> bool:
        """Whether somebody runs it who has chosen nothing: the pipeline's own scheduler, or a
        library's solver as it is.
        """
        return self.kind in (OriginKind.PIPELINE, OriginKind.STOCK)

    @property
    def is_given(self) -> bool:
        """Whether the search was given it, and did not make it."""
        return self.kind is not OriginKind.SEARCH

    @property
    def name(self) -> str:
        """What people call it: a published solver by its label alone."""
        return self.label if self.is_baseline else self.text

    @property
    def text(self) -> str:
        """The stored form, which Optuna's trials show too: `of_text` reads it."""
        if self.is_baseline:
            return BASELINE + self.label
        return (SEED if self.kind is OriginKind.SEED else "") + self.label

    @staticmethod
    @lru_cache(maxsize=4096)
    def of_text(text: str) -> "Origin":
        """The origin of its stored form; the one place that reads such a text.

        >>> Origin.of_text("baseline: DDIM, karras, stop").solver
        'DDIM'
        """
        if text.startswith(SEED):
            return seeded(text.removeprefix(SEED))
        if not text.startswith(BASELINE):
            return searched(text)
        label = text.removeprefix(BASELINE)
        name, *variant = label.split(", ")
        kind = OriginKind.PUBLISHED
        if name.endswith(_OF_PIPELINE):
            kind = OriginKind.PIPELINE
        elif name.startswith(_LIBRARIES) and all(part.startswith("NFE ") for part in variant):
            kind = OriginKind.STOCK
        return Origin(kind=kind, label=label, solver=name)


def published_as(solver: str, variant: str = "", nfe: int | None = None) -> Origin:
    """The origin of a published solver; ``nfe`` where the label is to say the number of calls."""
    calls = "" if nfe is None else f"NFE {nfe}"
    label = ", ".join(part for part in (solver, variant, calls) if part)
    return Origin(kind=OriginKind.PUBLISHED, label=label, solver=solver, variant=variant)


def of_pipeline(scheduler: str, variant: str = "", nfe: int | None = None) -> Origin:
    """The origin of what the model's own pipeline runs: its scheduler's class, and what is unlike
    it where something is.
    """
    found = published_as(scheduler + _OF_PIPELINE, variant, nfe)
    return replace(found, kind=OriginKind.PIPELINE)


def of_library(library: str, solver: str, variant: str = "", nfe: int | None = None) -> Origin:
    """The origin of a solver of ``library`` (diffusers, k-diffusion); without a ``variant`` it is
    the one that runs there by default.
    """
    found = published_as(f"{library} {solver}", variant, nfe)
    return found if variant else replace(found, kind=OriginKind.STOCK)


def searched(label: str) -> Origin:
    """The origin of a schedule that the search made itself: how it did, in words."""
    return Origin(kind=OriginKind.SEARCH, label=label)


def seeded(label: str) -> Origin:
    """The origin of a schedule that a search is given to begin with."""
    return Origin(kind=OriginKind.SEED, label=label)


@dataclass(frozen=True, eq=False, kw_only=True)
class Trial:
    """A schedule that a search wants measured; ``parents`` are ids of schedules.

    ``number`` counts the trials of one search; None leaves it to the log.  Make one with
    `Trial.of`, or with `Trial.stored` where the schedule is yet to be read.
    """

    id: str
    nfe: int
    origin: Origin
    parents: tuple[str, ...] = ()
    number: int | None = None
    source: Schedule | Callable[[], Schedule] = field(repr=False)
    stored_key: bytes | None = field(default=None, repr=False)

    @staticmethod
    def of(
        schedule: Schedule,
        origin: Origin,
        parents: tuple[str, ...] = (),
        number: int | None = None,
    ) -> "Trial":
        """The trial of a schedule at hand."""
        return Trial(
            id=schedule.id,
            nfe=schedule.nfe,
            origin=origin,
            parents=parents,
            number=number,
            source=schedule,
        )

    @cached_property
    def schedule(self) -> Schedule:
        """The schedule itself, read at the first look."""
        return self.source if isinstance(self.source, Schedule) else self.source()

    @cached_property
    def key(self) -> bytes:
        """The `schedule_key`: equal for trials that make the same images."""
        return self.stored_key or schedule_key(self.schedule)

    def is_for(self, process: NoiseProcess) -> bool:
        """Whether the schedule is written for this process, which parents must be; only what a
        search was given may be for one that is merely like it.
        """
        return self.origin.kind is OriginKind.SEARCH or self.schedule.process == process

    def numbered(self, number: int) -> "Trial":
        """This trial under a number, with what is known of it."""
        if self.number == number:
            return self
        source, key = self.__dict__.get("schedule"), self.__dict__.get("key")
        return replace(
            self,
            number=number,
            source=source or self.source,
            stored_key=key or self.stored_key,
        )

    def __getstate__(self) -> Mapping[str, Any]:
        """What travels to a worker: the schedule, and not how it would be read."""
        names = ("id", "nfe", "origin", "parents", "number")
        return {name: getattr(self, name) for name in names} | {"source": self.schedule}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)
        self.__dict__["stored_key"] = None


def distinct(trials: Iterable[Trial]) -> tuple[Trial, ...]:
    """Those with different plans, the first of each."""
    found: dict[bytes, Trial] = {}
    for trial in trials:
        found.setdefault(trial.key, trial)
    return tuple(found.values())


def plan_key(plan: Plan) -> bytes:
    """A hash of the rounded table: equal for schedules that compute the same images."""
    levels = np.array([(at.alpha, at.sigma) for at in plan.levels])
    digest = hashlib.blake2b(digest_size=16)
    tables = [levels, plan.p, plan.q, plan.constant, np.array(plan.network_times)]
    if plan.start_map is not None:
        own = plan.start_map
        scales = np.array([plan.noise_scale, own.gain])
        tables += [scales, own.offset, own.gains, own.directions]
    elif plan.noise_scale != plan.levels[0].sigma:
        tables.append(np.array([plan.noise_scale]))
    if plan.noise.any():
        tables.append(plan.noise)
    for r, row in plan.pixel_rows.items():
        tables += [np.array([r, *row.p, -1, *row.q]), *row.p.values(), *row.q.values(), row.offset]
    for table in tables:
        # + 0.0 turns -0.0 into 0.0
        digest.update(repr(table.shape).encode())
        digest.update((np.round(table, _KEY_DECIMALS) + 0.0).tobytes())
    return digest.digest()


_REMEMBERED: OrderedDict[str, bytes] = OrderedDict()
_MOST_REMEMBERED = 2**16  # some 10 MB; a search asks for the keys of what is under way each time


def schedule_key(schedule: Schedule) -> bytes:
    """The plan key of a schedule; the hash of its content where the plan needs statistics."""
    if schedule.statistics is not None:
        return bytes.fromhex(schedule.id)
    known = _REMEMBERED.get(schedule.id)
    if known is None:
        known = _REMEMBERED[schedule.id] = plan_key(compile_plan(schedule))
        if len(_REMEMBERED) > _MOST_REMEMBERED:
            _REMEMBERED.popitem(last=False)
    return known
