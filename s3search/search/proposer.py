"""What a search algorithm is: a proposer that is told what was measured.

A proposer is a pure function of its seed, the number of the proposal, the observations it was
told in their order, and what is being measured right now.  It saves nothing: a killed study is
resumed by making the proposer anew and telling it the stored observations again.  After

    evolution.tell(Observation(number=0, schedule=s0, value=0.31))
    evolution.tell(Observation(number=2, schedule=s2, value=None))

the state of `Evolution` is: the plan keys of {s0, s2} as seen, and the population of s0's nfe,
[(0.31, 0, s0)]; ``propose(3, pending=[s1])`` draws from ``default_rng([seed, 3])``, so it gives
the same proposal in every process that was told the same.

There may be tens of thousands of observations to tell again, and to read and compile a schedule
takes a millisecond.  So what was stored is told as a `StoredObservation`, which knows its plan key
and reads its schedule when a proposer asks for it.

A value is a distance: lower is better.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from s3search.processes import NoiseProcess
from s3search.schedules.schedule import Schedule
from s3search.solvers.plan import Plan, compile_plan

# of a plan's coefficients; rounding in double precision stays near 1e-13
# NOTE: keys are stored (`s3search.study.database.tables.SCHEDULES`); a change here takes a
# migration that clears them
_KEY_DECIMALS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A schedule to measure; ``origin`` says in words where it came from, ``parents`` are ids."""

    number: int
    schedule: Schedule
    origin: str
    parents: tuple[str, ...] = ()


class Told(Protocol):
    """A measured proposal; ``value`` is None where the measurement failed."""

    @property
    def number(self) -> int: ...

    @property
    def value(self) -> float | None: ...

    @property
    def id(self) -> str: ...

    @property
    def nfe(self) -> int: ...

    @property
    def key(self) -> bytes:
        """The schedule's `schedule_key`."""

    @property
    def schedule(self) -> Schedule: ...

    def is_for(self, process: NoiseProcess) -> bool:
        """Whether the schedule is written for this process, which parents must be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What was measured now."""

    number: int
    schedule: Schedule
    value: float | None

    @property
    def id(self) -> str:
        """The schedule's."""
        return self.schedule.id

    @property
    def nfe(self) -> int:
        """The schedule's."""
        return self.schedule.nfe

    @property
    def key(self) -> bytes:
        """Compiles the schedule."""
        return schedule_key(self.schedule)

    def is_for(self, process: NoiseProcess) -> bool:
        """As the schedule says."""
        return self.schedule.process == process


@dataclass(frozen=True, kw_only=True)
class StoredObservation:
    """What an earlier run measured of a proposal that the search made itself."""

    number: int
    id: str
    nfe: int
    key: bytes
    value: float | None
    read: Callable[[], Schedule]

    @cached_property
    def schedule(self) -> Schedule:
        """Read once."""
        return self.read()

    def is_for(self, process: NoiseProcess) -> bool:
        """A search makes schedules for its own process; only seeds may be for one like it."""
        del process
        return True


class Proposer(Protocol):
    """A search algorithm; the contract stands in the module's docstring."""

    def tell(self, observation: Told) -> None:
        """Takes in one measurement; the order of the calls is part of the state."""

    def propose(self, number: int, pending: Sequence[Schedule]) -> Proposal:
        """The proposal of this number, unlike any schedule told or pending; changes nothing."""


def plan_key(plan: Plan) -> bytes:
    """A hash of the rounded table: equal for schedules that compute the same images."""
    levels = np.array([(at.alpha, at.sigma) for at in plan.levels])
    digest = hashlib.blake2b(digest_size=16)
    tables = [levels, plan.p, plan.q, plan.constant, np.array(plan.network_times)]
    if plan.start_map is not None:
        own = plan.start_map
        scales = np.array([own.noise_scale, own.gain])
        tables += [scales, own.offset, own.gains, own.directions]
    for r, row in plan.pixel_rows.items():
        tables += [np.array([r, *row.p, -1, *row.q]), *row.p.values(), *row.q.values(), row.offset]
    for table in tables:
        # + 0.0 turns -0.0 into 0.0
        digest.update(repr(table.shape).encode())
        digest.update((np.round(table, _KEY_DECIMALS) + 0.0).tobytes())
    return digest.digest()


def schedule_keys(schedules: Iterable[Schedule]) -> set[bytes]:
    """The keys of many that were asked for before: those under way, at every proposal."""
    known = _REMEMBERED
    return {known.get(schedule.id) or schedule_key(schedule) for schedule in schedules}


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
