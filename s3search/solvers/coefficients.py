"""Any linear schedule by its coefficients alone: as arrays, and as a schedule of free steps.

Every state is a linear combination of the states that drew noise, of the network's predictions
and of the constant image of an analytic start.  Without noise in its steps, a schedule has drawn
some in its first state x_0 alone.  With E calls, and row r the state of call r (row E: the image):

    x_r = p0[r] x_0 + sum_{k<r} p[r, k] x_k + sum_{j<r} q[r, j] D_j + constant[r] c + noise[r] xi_r

for r = 0 .. E, with p[r, k] = 0 unless row k draws, noise[k] != 0.  Rows that no call sees (pseudo
correctors) and rows that draw nothing are written out in those that use them; a call that an
implicit corrector replaces stays, as a further row at the same level.  A draw used again in a
later row (`s3search.solvers.trace`) is in the states that it made.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from s3search.errors import InvalidSchedule
from s3search.processes import NoiseProcess
from s3search.rules import Free, Level, level
from s3search.rules.linear_form import state
from s3search.schedules.schedule import ModelPatch, Schedule, Start, StartKind, Step, needs_ems
from s3search.solvers.plan import Plan, compile_plan
from s3search.solvers.trace import analytic_prediction

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class CoefficientTable:
    """A schedule's coefficients over x_0 and its calls; the module's docstring has the legend.

    ``times[r]`` is the time of row r, ``network_times[j]`` the network time of call j.  Without an
    analytic start, ``times[0]`` is ``first_time``, and row 0 is x_0 itself (``p0[0]`` is 1) unless
    the start adds noise to it.
    """

    process: NoiseProcess
    start: Start
    first_time: float  # of x_0
    times: Array  # (E + 1,)
    p0: Array  # (E + 1,)
    p: Array  # (E + 1, E + 1), zero from the diagonal on
    q: Array  # (E + 1, E), zero from the diagonal on
    constant: Array  # (E + 1,), zero unless the start is average_x0
    noise: Array  # (E + 1,)
    network_times: Array  # (E,)

    @property
    def nfe(self) -> int:
        """Network calls per image (E)."""
        return len(self.network_times)

    @property
    def is_analytic(self) -> bool:
        """Whether the first prediction is no call, so that row 0 comes of the first step."""
        return self.start.kind is not StartKind.NETWORK

    @property
    def hides_first(self) -> bool:
        """Whether x_0 is not shown to the network, so that row 0 is another state."""
        return self.is_analytic or self.start.noise is not None

    @property
    def rises(self) -> bool:
        """Whether a time is above the one before it."""
        return bool((np.diff([self.first_time, *self.times]) > 0.0).any())


def as_coefficients(schedule: Schedule) -> Schedule:
    """``schedule`` with one free step per network call, which makes its images with its calls.

    Raises `InvalidSchedule` for v3 steps, whose weights differ per pixel, and for a patch of the
    network by steps where their number changes.
    """
    patch, table = schedule.model_patch, coefficient_table(schedule)
    n_steps = table.nfe + table.is_analytic
    if patch is not None and patch.skip_layers is not None and n_steps != schedule.n_steps:
        raise InvalidSchedule(
            f"model_patch.skip_layers: names the layers of {schedule.n_steps} steps, which make "
            f"{n_steps} free ones; remove it or the correctors"
        )
    provenance = {**schedule.provenance, "freed_from": schedule.id}
    return schedule_of_table(table, model_patch=patch, provenance=provenance)


def coefficient_table(schedule: Schedule) -> CoefficientTable:
    """The table of any linear schedule, whose inverse is `schedule_of_table`.

    Raises `InvalidSchedule` for v3 steps, whose weights differ per pixel, and for a corrector that
    draws noise of its own, in a state that no call sees.
    """
    needing = needs_ems(schedule.steps)
    if needing is not None:
        raise InvalidSchedule(f"{needing}: v3 steps weigh every pixel apart; no free step can")
    plan = compile_plan(schedule)
    rows = [*plan.evaluated, plan.n_rows - 1]
    own = _rows_written_out(plan, rows)
    return CoefficientTable(
        process=schedule.process,
        start=schedule.start,
        first_time=schedule.times[0],
        times=np.array([plan.levels[r].t for r in rows]),
        p0=own.p0[rows],
        p=own.p[rows],
        q=own.q[rows],
        constant=own.constant[rows],
        noise=plan.noise[rows],
        network_times=np.array(plan.network_times),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """The coefficients of all R rows of a plan."""

    p0: Array  # (R,)
    p: Array  # (R, E + 1)
    q: Array  # (R, E)
    constant: Array  # (R,)


def _rows_written_out(plan: Plan, rows: Sequence[int]) -> _Rows:
    """A plan's rows over the states, of those in ``rows``, that drew noise."""
    hidden = set(plan.noisy_rows) - set(rows)
    if hidden:
        raise InvalidSchedule(
            f"noise: row {min(hidden)} of the plan draws some after its call; only a step's own "
            "state can draw in a free step"
        )
    n = plan.n_rows
    made, seen = (
        _Rows(np.zeros(n), np.zeros((n, len(rows))), np.zeros_like(plan.q), np.zeros(n))
        for _ in range(2)
    )
    made.p0[0] = seen.p0[0] = 1.0
    for r in range(1, n):
        weights = plan.p[r, :r]
        made.p0[r] = weights @ seen.p0[:r]
        made.p[r] = weights @ seen.p[:r]
        made.q[r] = plan.q[r] + weights @ seen.q[:r]
        made.constant[r] = plan.constant[r] + weights @ seen.constant[:r]
        if plan.noise[r]:  # later rows have the state itself
            seen.p[r, rows.index(r)] = 1.0
        else:
            seen.p0[r], seen.p[r], seen.q[r] = made.p0[r], made.p[r], made.q[r]
            seen.constant[r] = made.constant[r]
    return made


def schedule_of_table(
    table: CoefficientTable,
    *,
    model_patch: ModelPatch | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Schedule:
    """The schedule of free steps with these coefficients.

    A row that carries a constant noise and image says so, any other has ``carries`` false.
    """
    _check_shapes(table)
    first = 0 if table.is_analytic else 1
    times = [table.first_time, *table.times[first:].tolist()]
    levels = [level(table.process, t) for t in times]
    network_times = [
        None if t == own else t
        for t, own in zip(table.network_times.tolist(), table.times[:-1].tolist(), strict=True)
    ]
    steps = tuple(
        Step(
            predictor=_free_step(table, r, levels[: r + 1 - first], levels[r + 1 - first]),
            network_time=network_times[r] if r < table.nfe else None,
        )
        for r in range(first, table.nfe + 1)
    )
    at_start = None if table.is_analytic else network_times[0]
    return Schedule(
        process=table.process,
        times=tuple(times),
        start=table.start.model_copy(update={"network_time": at_start}),
        steps=steps,
        model_patch=model_patch,
        provenance=provenance or {},
    )


def _free_step(table: CoefficientTable, r: int, past: list[Level], to: Level) -> Free:
    """Row r as a step; over the analytic prediction too, where there is one.

    That prediction is no unknown of the table: what x_0, the constant image and 0 amount to is
    shared out so that the row carries constants, where it can.
    """
    calls = table.q[r, :r].tolist()
    p, guess = float(table.p0[r]), float(table.constant[r])
    others = [(k - r, float(table.p[r, k])) for k in np.flatnonzero(table.p[r, :r]).tolist()]
    own, q = p, calls
    if table.is_analytic:
        image = math.fsum([*calls, *(c * past[point].alpha for point, c in others)])
        own, shared = _shared(table, p, guess, image, past[0], to)
        q, calls = [shared, *calls], [guess, *calls]
    noise = float(table.noise[r])
    carrying = _plain([(-len(past), own), *others], q, noise, carries=True)
    if carrying.problem(past, to) is None:
        return carrying
    return _plain([(-len(past), p), *others], calls, noise, carries=False)


def _shared(
    table: CoefficientTable, p: float, guess: float, others: float, first: Level, to: Level
) -> tuple[float, float]:
    """The coefficients of x_0 and of the analytic prediction that may carry constants, beside
    terms that carry the share ``others`` of an image.

    Where the prediction is k x_0 (k = 0 for `zero_x0`), those with p' + k q' = p and
    p' alpha_0 + q' + others = alpha_t.
    """
    if table.start.kind is StartKind.AVERAGE_X0:
        return p, guess
    k = float(analytic_prediction(table.start.kind, first).terms.get(state(0), 0.0))
    image = to.alpha - others
    own = (p - k * image) / (1.0 - k * first.alpha)
    return own, image - own * first.alpha


def _plain(p: list[tuple[int, float]], q: list[float], noise: float, *, carries: bool) -> Free:
    """The step over states and the newest predictions, without states of weight 0 and without the
    zeros in front of the predictions'.
    """
    used = next((j for j, c in enumerate(q) if c), len(q) - 1)
    points = tuple((point, c) for point, c in p if c)
    return Free(p=points, q=tuple(q[used:]), noise=noise, carries=carries)


def _check_shapes(table: CoefficientTable) -> None:
    n = table.nfe
    wanted: dict[str, tuple[int, ...]] = {
        **dict.fromkeys(("times", "p0", "constant", "noise"), (n + 1,)),
        "p": (n + 1, n + 1),
        "q": (n + 1, n),
    }
    for name, shape in wanted.items():
        found = getattr(table, name).shape
        if found != shape:
            raise InvalidSchedule(f"{name}: a table of {n} calls has shape {shape}, found {found}")
        if not np.isfinite(getattr(table, name)).all():
            raise InvalidSchedule(f"{name}: holds a number that is not finite")
    for r, t in enumerate((table.first_time, *table.times.tolist())):
        reason = table.process.check_time(t)
        if reason is not None:
            owner = f"times[{r - 1}]" if r else "first_time"
            raise InvalidSchedule(f"{owner}: {reason}")
    if np.triu(table.q).any():
        raise InvalidSchedule("q: a row uses a call that is made at it or later")
    if np.triu(table.p).any():
        raise InvalidSchedule("p: a row uses a state that is made at it or later")
    if not table.is_analytic and table.times[0] != table.first_time:
        raise InvalidSchedule("times: row 0 is at first_time unless the start is analytic")
    if not table.hides_first and (table.p0[0] != 1.0 or table.noise[0]):
        raise InvalidSchedule(
            "p0: row 0 is x_0 itself, without a draw, unless the start is analytic or adds noise"
        )
    if table.start.kind is not StartKind.AVERAGE_X0 and table.constant.any():
        raise InvalidSchedule("constant: only a start 'average_x0' has a constant image")
