"""Plans: a schedule compiled to numbers.

A plan computes states x_0 .. x_{R-1}, one row each, and calls the network on some of them:

    x_0 = sigma(t_0) noise, or what a Gaussian jump makes of noise (start_map.py)
    x_r = sum_{k<r} p[r, k] x_k + sum_j q[r, j] D_j + r_const[r] c
    D_j = D(x_{evaluated[j]}, network_times[j])

x_{R-1} is the image.  A pseudo corrector adds a row at the same level, an implicit one a row and a
call.  c is the mean image of
an analytic start, absent otherwise.  Every row carries a constant noise and a constant image
exactly:

    sum_k p[r, k] sigma_k = sigma_r,      sum_k p[r, k] alpha_k + sum_j q[r, j] = alpha_r

which is checked here, on the symbolic row, before an analytic start is written out; a rule whose
published form does not (Euler in a curved time) says so by `carries_constants`.  Where the
network is told another time than a state's own, D = c for the image c and eps = n for the noise n
no longer follow from each other, and a row of either prediction carries what it assumes: with
(alpha', sigma') the level told, eps = n means D_j = (alpha_j c + (sigma_j - sigma') n) / alpha'.

A row made with EMS statistics (DPM-Solver-v3) has weights that differ per pixel, and a term of its
own: to the sums above come P[k] * x_k, Q[j] * D_j and an offset, elementwise, as `PixelRow` keeps
them apart from the tables.  Statistics are measured, so such a row carries nothing exactly; its
weights must be finite.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from s3search.errors import IncompatibleStatistics, InvalidSchedule
from s3search.processes import NoiseProcess
from s3search.rules import INVARIANT_TOLERANCE, AnyRule, EmsStatistics, Level, Point, level
from s3search.rules.linear_form import (
    CONSTANT,
    OFFSET,
    ZERO,
    LinearForm,
    combine,
    data,
    state,
)
from s3search.schedules.schedule import CorrectorKind, Schedule, StartKind, Step
from s3search.solvers.start_map import StartMap, start_map_of

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class PixelRow:
    """The part of a row that differs per pixel: weights (C, H, W) of states and predictions, and
    the offset.
    """

    p: Mapping[int, Array]
    q: Mapping[int, Array]
    offset: Array


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Plan:
    """The table of one schedule; the legend stands in the module's docstring."""

    process: NoiseProcess
    levels: tuple[Level, ...]  # (R,) level of every row
    p: Array  # (R, R), strictly lower triangular
    q: Array  # (R, E)
    constant: Array  # (R,)
    image: Array | None  # (C, H, W)
    evaluated: tuple[int, ...]  # (E,) the row each call sees
    network_times: tuple[float, ...]  # (E,)
    start_map: StartMap | None = None
    pixel_rows: Mapping[int, PixelRow] = field(default_factory=dict)  # empty for most solvers

    @property
    def nfe(self) -> int:
        """Network calls per image."""
        return len(self.evaluated)

    @property
    def noise_scale(self) -> float:
        """The factor on unit noise that the run begins with."""
        return self.levels[0].sigma if self.start_map is None else self.start_map.noise_scale

    @property
    def call_levels(self) -> tuple[Level, ...]:
        """The level that the network is told at each call, (E,)."""
        return tuple(level(self.process, t) for t in self.network_times)

    @property
    def n_rows(self) -> int:
        """Number of states, the initial one included."""
        return len(self.levels)

    @property
    def pixel_shape(self) -> tuple[int, ...] | None:
        """(C, H, W) of the images that the plan is for, None if it is for any."""
        shapes = [row.offset.shape for row in self.pixel_rows.values()]
        return np.broadcast_shapes(*shapes) if shapes else None

    def to_dict(self) -> dict[str, Any]:
        """The portable table: per row its weights, and the time of the call on it (or null).

        A weight that differs per pixel is a nested list (C, H, W) in the place of a number, and
        its row has an "offset" (C, H, W) to add.
        """
        calls = dict(zip(self.evaluated, self.network_times, strict=True))
        rows: list[dict[str, Any]] = [
            {
                "p": self.p[r, :r].tolist(),
                "q": self.q[r, : sum(e < r for e in self.evaluated)].tolist(),
                "constant": float(self.constant[r]),
                "network_time": calls.get(r),
            }
            for r in range(self.n_rows)
        ]
        for r, pixels in self.pixel_rows.items():
            for name, weights in (("p", pixels.p), ("q", pixels.q)):
                for k, weight in weights.items():
                    rows[r][name][k] = weight.tolist()
            rows[r]["offset"] = pixels.offset.tolist()
        image = None if self.image is None else self.image.tolist()
        table = {"noise_scale": self.noise_scale, "image": image, "rows": rows}
        if self.start_map is not None:
            table["start_map"] = self.start_map.to_dict()
        return table


def compile_plan(schedule: Schedule, statistics: EmsStatistics | None = None) -> Plan:
    """The plan of ``schedule``; float64, on the CPU, well under a millisecond.

    ``statistics`` are those that the schedule names, if it names any. Raises `InvalidSchedule`
    (with the step) where a row breaks the invariants, and `IncompatibleStatistics` for other
    statistics than the named.
    """
    trace = _Trace(schedule, _named_statistics(schedule, statistics))
    for i, step in enumerate(schedule.steps):
        is_last = i == len(schedule.steps) - 1
        to = level(schedule.process, schedule.times[i + 1])
        try:
            trace.advance(step, to, is_last)
        except (InvalidSchedule, IncompatibleStatistics) as error:
            raise type(error)(f"steps[{i}]: {error}") from error
    return trace.plan()


def _named_statistics(
    schedule: Schedule, statistics: EmsStatistics | None
) -> EmsStatistics | None:
    named = schedule.statistics
    if named is None:
        return None
    if statistics is None:
        raise IncompatibleStatistics(
            f"statistics: the schedule needs {named.kind} statistics {named.digest}, none were "
            "given; pass EmsStatistics.load(file) to compile_plan (`s3search check` has --ems)"
        )
    if statistics.digest != named.digest:
        raise IncompatibleStatistics(
            f"statistics: the schedule was made with {named.kind} statistics {named.digest}, "
            f"found {statistics.digest}; they belong to one model and one guidance scale"
        )
    return statistics


def check_table(schedule: Schedule, table: Any, statistics: EmsStatistics | None = None) -> None:
    """Raises `InvalidSchedule` unless ``table``, a file's "plan", is what the schedule compiles
    to.

    s3search itself never executes a file's table; other runtimes do, so a table that lies must not
    pass.
    """
    if table is None:
        return
    own = compile_plan(schedule, statistics).to_dict()
    if not _same_numbers(own, table):
        raise InvalidSchedule("plan: the table is not what these steps compile to; export again")


def _same_numbers(own: Any, found: Any) -> bool:
    if isinstance(own, dict):
        same_keys = isinstance(found, dict) and own.keys() == found.keys()
        return same_keys and all(_same_numbers(own[key], found[key]) for key in own)
    if isinstance(own, list):
        same_length = isinstance(found, list) and len(own) == len(found)
        return same_length and all(map(_same_numbers, own, found))
    if isinstance(own, float) and isinstance(found, float | int):
        return bool(abs(own - found) <= INVARIANT_TOLERANCE * max(1.0, abs(own)))
    return bool(own == found)


def compile_plans(schedules: Iterable[Schedule]) -> "PlanBatch":
    """The plans of many schedules, with their tables stacked and padded for vectorised use."""
    return PlanBatch([compile_plan(schedule) for schedule in schedules])


class PlanBatch(Sequence[Plan]):
    """Plans beside their stacked tables: ``p`` (B, R, R), ``q`` (B, R, E), ``constant`` (B, R),
    zero-padded *in front*.

    Padding in front keeps the final state at row -1 for all; ``evaluated`` (B, E) is -1 where a
    plan has fewer calls.
    """

    def __init__(self, plans: Sequence[Plan]) -> None:
        if any(plan.pixel_rows for plan in plans):
            raise InvalidSchedule(
                "a batch of plans holds numbers, and a plan with v3 steps has weights per pixel; "
                "leave it out, or run it alone"
            )
        self._plans = tuple(plans)
        rows = max((plan.n_rows for plan in plans), default=0)
        calls = max((plan.nfe for plan in plans), default=0)
        self.p = np.zeros((len(plans), rows, rows))
        self.q = np.zeros((len(plans), rows, calls))
        self.constant = np.zeros((len(plans), rows))
        self.evaluated = np.full((len(plans), calls), -1)
        self.network_times = np.zeros((len(plans), calls))
        self.first_row = np.array([rows - plan.n_rows for plan in plans])
        for b, plan in enumerate(plans):
            r, e = rows - plan.n_rows, plan.nfe
            self.p[b, r:, r:] = plan.p
            self.q[b, r:, :e] = plan.q
            self.constant[b, r:] = plan.constant
            self.evaluated[b, :e] = np.array(plan.evaluated, dtype=int) + r
            self.network_times[b, :e] = plan.network_times

    def __len__(self) -> int:
        return len(self._plans)

    def __iter__(self) -> Iterator[Plan]:
        return iter(self._plans)

    def __getitem__(self, index: Any) -> Any:
        return self._plans[index]


class _Trace:
    """Runs a schedule on symbols; each advance appends rows and points."""

    def __init__(self, schedule: Schedule, ems: EmsStatistics | None) -> None:
        self.schedule = schedule
        self.ems = ems
        first = level(schedule.process, schedule.times[0])
        self.levels = [first]
        self.rows: list[LinearForm] = [ZERO]
        self.evaluated: list[int] = []
        self.told: list[Level] = []
        self.history: list[Point] = []
        # The symbol of call 0 stands for the first prediction even when it is analytic; `plan`
        # writes it out.
        self._call(first, LinearForm.of(state(0)), schedule.start.network_time)

    def advance(self, step: Step, to: Level, is_last: bool) -> None:
        corrector = step.corrector
        if step.compensation is not None:
            self.history[-1] = step.compensation.compensated(self.history)
        new = self._append(step.predictor, to)
        if is_last and corrector is None:
            return
        self._call(to, new, step.network_time)
        if corrector is None:
            return
        predicted = self.history[-1]
        corrected = self._append(corrector.rule, to)
        self.history[-1] = replace(predicted, state=corrected)
        if corrector.kind is CorrectorKind.IMPLICIT:
            self.history.pop()
            self._call(to, corrected, step.network_time)

    def _append(self, rule: AnyRule, to: Level) -> LinearForm:
        if self.ems is not None and rule.needs_ems:
            row = rule.next_state_with(self.ems, self.history, to)
            _check_finite(row, to)
        else:
            row = rule.next_state(self.history, to)
            if rule.carries_constants:
                self._check(row, to)
            elif not all(map(math.isfinite, _scalar_terms(row).values())):
                raise InvalidSchedule(f"the row for t = {to.t} has a weight that is not finite")
        self.rows.append(row)
        self.levels.append(to)
        return LinearForm.of(state(len(self.rows) - 1))

    def _call(self, at: Level, where: LinearForm, network_time: float | None) -> None:
        told = None if network_time is None else level(self.schedule.process, network_time)
        answer = LinearForm.of(data(len(self.evaluated)))
        self.history.append(Point(at, where, where, answer, told))
        self.evaluated.append(len(self.rows) - 1)
        self.told.append(told or at)

    def _check(self, row: LinearForm, to: Level) -> None:
        exact_data = [(0.0, 1.0)] * len(self.told)
        error, size = self._lost(row, to, exact_data)
        if not error <= INVARIANT_TOLERANCE * size:
            error, size = self._lost(row, to, self._answers_of_exact_noise())
        if not error <= INVARIANT_TOLERANCE * size:
            raise InvalidSchedule(
                f"the row for t = {to.t} does not carry a constant image and noise "
                f"(off by {error:.1e})"
            )

    def _answers_of_exact_noise(self) -> list[tuple[float, float]]:
        """The noise and image in every answer if eps is exact; (0, 1) where no time is shifted."""
        answers = []
        for row, told in zip(self.evaluated, self.told, strict=True):
            at = self.levels[row]
            is_shifted = told != at
            noise = (at.sigma - told.sigma) / told.alpha if is_shifted else 0.0
            answers.append((noise, at.alpha / told.alpha if is_shifted else 1.0))
        return answers

    def _lost(
        self, row: LinearForm, to: Level, answers: Sequence[tuple[float, float]]
    ) -> tuple[float, float]:
        """What the row loses of noise or image if the calls answer so, and the row's size."""
        noise, image, size = 0.0, 0.0, 1.0
        for symbol, c in _scalar_terms(row).items():
            if symbol % 2:
                own_noise, own_image = answers[symbol // 2]
                noise += c * own_noise
                image += c * own_image
                size += abs(c) * (abs(own_noise) + own_image)
            else:
                at = self.levels[symbol // 2]
                noise += c * at.sigma
                image += c * at.alpha
                size += abs(c) * (at.alpha + at.sigma)
        return max(abs(noise - to.sigma), abs(image - to.alpha)), size

    def plan(self) -> Plan:
        start = self.schedule.start
        analytic = start.kind is not StartKind.NETWORK
        rows, first = self.rows, self.levels[0]
        if analytic:
            guess = analytic_prediction(start.kind, first)
            rows = [row.substitute(data(0), guess) for row in rows]
        calls = self.evaluated[analytic:]
        p = np.zeros((len(rows), len(rows)))
        q = np.zeros((len(rows), len(calls)))
        constant = np.zeros(len(rows))
        pixel_rows = {}
        for r, row in enumerate(rows):
            if OFFSET in row.terms:
                pixel_rows[r] = _pixel_row(row, analytic, start.image)
                continue
            for symbol, c in row.terms.items():
                if symbol == CONSTANT:
                    constant[r] = c
                elif symbol % 2:
                    q[r, symbol // 2 - analytic] = c
                else:
                    p[r, symbol // 2] = c
        return Plan(
            process=self.schedule.process,
            levels=tuple(self.levels),
            p=p,
            q=q,
            constant=constant,
            image=None if start.image is None else np.array(start.image),
            evaluated=tuple(calls),
            network_times=tuple(at.t for at in self.told[analytic:]),
            start_map=self._start_map(),
            pixel_rows=pixel_rows,
        )

    def _start_map(self) -> StartMap | None:
        jump = self.schedule.start.jump
        if jump is None:
            return None
        source = level(self.schedule.process, jump.from_time)
        return start_map_of(jump, source, self.levels[0])


def _scalar_terms(row: LinearForm) -> Mapping[int, float]:
    """The terms of a row made without statistics; arrays come from rules with them alone."""
    return cast("Mapping[int, float]", row.terms)


def _check_finite(row: LinearForm, to: Level) -> None:
    if not all(np.isfinite(c).all() for c in row.terms.values()):
        raise IncompatibleStatistics(
            f"the row for t = {to.t} has weights that are not finite; these EMS statistics grow "
            "too fast between its times"
        )


def _pixel_row(row: LinearForm, analytic: bool, image: Any) -> PixelRow:
    """A row made with statistics; a weight of the constant image goes into the offset."""
    shape = np.shape(row.terms[OFFSET])
    p: dict[int, Array] = {}
    q: dict[int, Array] = {}
    offset = np.zeros(shape)
    for symbol, c in row.terms.items():
        if symbol == OFFSET:
            offset = offset + c
        elif symbol == CONSTANT:
            offset = offset + c * np.array(image)
        elif symbol % 2:
            q[symbol // 2 - analytic] = np.broadcast_to(c, shape)
        else:
            p[symbol // 2] = np.broadcast_to(c, shape)
    return PixelRow(p=p, q=q, offset=offset)


def analytic_prediction(kind: StartKind, first: Level) -> LinearForm:
    """D at the first time without a call, as a form in x_0 and the constant image."""
    if kind is StartKind.AVERAGE_X0:
        return LinearForm.of(CONSTANT)
    if kind is StartKind.ZERO_X0:
        return ZERO
    # eps = x / sqrt(alpha^2 + sigma^2), so D = (x - sigma eps) / alpha
    norm = (first.alpha**2 + first.sigma**2) ** 0.5
    return combine((((1.0 - first.sigma / norm) / first.alpha, LinearForm.of(state(0))),))
