"""Plans: a schedule compiled to numbers.

A plan computes states x_0 .. x_{R-1}, one row each, and calls the network on some of them:

    x_0 = noise_scale noise, or what a Gaussian jump makes of noise (start_map.py)
    x_r = sum_{k<r} p[r, k] x_k + sum_j q[r, j] D_j + r_const[r] c + noise[r] xi_r
    D_j = D(x_{evaluated[j]}, network_times[j])

x_{R-1} is the image; c is the mean image of an analytic start, absent otherwise; xi_r ~ N(0, I) is
drawn for each noisy row anew (step_noise.py), and noise is 0 where nothing is drawn.  Which rows a
schedule has, and what each of them carries, stands in trace.py.

A row made with EMS statistics (DPM-Solver-v3) has weights that differ per pixel, and a term of its
own: to the sums above come P[k] * x_k, Q[j] * D_j and an offset, elementwise, as `PixelRow` keeps
them apart from the tables.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from s3search.errors import InvalidSchedule
from s3search.processes import NoiseProcess
from s3search.rules import INVARIANT_TOLERANCE, EmsStatistics, Level, level
from s3search.rules.linear_form import CONSTANT, OFFSET, LinearForm, data
from s3search.schedules.schedule import Schedule, StartKind
from s3search.solvers.start_map import StartMap, jumped, noise_scale_of, start_map_of
from s3search.solvers.step_noise import Draws, nothing
from s3search.solvers.trace import Trace, analytic_prediction

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class PixelRow:
    """The part of a row that differs per pixel: weights of a sample's shape, or of one number, of
    states and predictions, and the offset.
    """

    p: Mapping[int, Array]
    q: Mapping[int, Array]
    offset: Array

    def added_to(
        self, total: Tensor, states: Sequence[Tensor], predictions: Sequence[Tensor]
    ) -> Tensor:
        """``total`` (B, ...) plus these terms, in its dtype."""

        def here(values: Array) -> Tensor:
            own = values.reshape(()) if values.size == 1 else values  # for states of any rank
            return torch.tensor(own, dtype=total.dtype, device=total.device)

        total = total + here(self.offset)
        for weights, tensors in ((self.p, states), (self.q, predictions)):
            for k, weight in weights.items():
                total.addcmul_(here(weight), tensors[k])
        return total


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Plan:
    """The table of one schedule; the module's docstring has the legend."""

    process: NoiseProcess
    levels: tuple[Level, ...]  # (R,) level of every row
    p: Array  # (R, R), strictly lower triangular
    q: Array  # (R, E)
    constant: Array  # (R,)
    noise: Array  # (R,)
    image: Array | None  # of a sample's shape
    evaluated: tuple[int, ...]  # (E,) the row each call sees
    network_times: tuple[float, ...]  # (E,)
    noise_scale: float  # the factor on unit noise that the run begins with: sigma(t_0) as a rule
    start_map: StartMap | None = None
    pixel_rows: Mapping[int, PixelRow] = field(default_factory=dict)  # empty for most solvers

    @property
    def nfe(self) -> int:
        """Network calls per image."""
        return len(self.evaluated)

    @property
    def call_levels(self) -> tuple[Level, ...]:
        """The level of each call's network time, (E,)."""
        return tuple(level(self.process, t) for t in self.network_times)

    @property
    def n_rows(self) -> int:
        """Number of states, the initial one included."""
        return len(self.levels)

    @property
    def noisy_rows(self) -> tuple[int, ...]:
        """The rows that draw noise, in the order in which they do."""
        return tuple(np.flatnonzero(self.noise).tolist())

    @property
    def pixel_shape(self) -> tuple[int, ...] | None:
        """That of the samples that the plan is for, None if it is for any."""
        offsets = [row.offset for row in self.pixel_rows.values()]
        shapes = [offset.shape for offset in offsets if offset.size > 1]
        return np.broadcast_shapes(*shapes) if shapes else None

    def first_state(self, noise: Tensor) -> Tensor:
        """x_0 (B, ...) of ``noise`` ~ N(0, I), in its dtype."""
        return jumped(self.start_map, noise * self.noise_scale)

    def next_state(
        self, states: Sequence[Tensor], predictions: Sequence[Tensor], draws: Draws = nothing
    ) -> Tensor:
        """x (B, ...) of the first row that is not in ``states``; zero weights cost nothing."""
        row, total = len(states), None
        weights = (*self.p[row, :row].tolist(), *self.q[row, : len(predictions)].tolist())
        for weight, tensor in zip(weights, (*states, *predictions), strict=True):
            if weight:
                total = tensor * weight if total is None else total.add_(tensor, alpha=weight)
        if total is None:
            total = torch.zeros_like(states[0])
        if row in self.pixel_rows:
            total = self.pixel_rows[row].added_to(total, states, predictions)
        if self.image is not None and self.constant[row]:
            image = torch.as_tensor(self.image, dtype=total.dtype, device=total.device)
            total = total + float(self.constant[row]) * image
        if weight := float(self.noise[row]):
            total = total + weight * draws(row, total)
        return total

    def call_times(self, call: int, x: Tensor) -> Tensor:
        """The network time of this call for each image of ``x`` (B,), in its dtype."""
        return x.new_full((len(x),), self.network_times[call])

    def to_dict(self) -> dict[str, Any]:
        """The portable table: per row its weights, and the time of the call on it (or null).

        A weight that differs per pixel is a nested list in the place of a number, and its row has
        an "offset" to add, both of a sample's shape.  A row that draws noise has its weight,
        "noise".
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
        for r in self.noisy_rows:
            rows[r]["noise"] = float(self.noise[r])
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
    trace, start = Trace(schedule, statistics), schedule.start
    analytic = start.kind is not StartKind.NETWORK
    rows, first = trace.rows, trace.levels[0]
    if analytic:
        guess = analytic_prediction(start.kind, first)
        rows = [row.substitute(data(0), guess) for row in rows]
    calls = trace.evaluated[analytic:]
    p = np.zeros((len(rows), len(rows)))
    q = np.zeros((len(rows), len(calls)))
    constant, noise = np.zeros(len(rows)), np.zeros(len(rows))
    pixel_rows = {}
    for r, row in enumerate(rows):
        if OFFSET in row.terms:
            pixel_rows[r] = _pixel_row(row, analytic, start.image)
            continue
        for symbol, c in row.terms.items():
            if symbol == CONSTANT:
                constant[r] = c
            elif symbol < 0:
                noise[r] = c
            elif symbol % 2:
                q[r, symbol // 2 - analytic] = c
            else:
                p[r, symbol // 2] = c
    return Plan(
        process=schedule.process,
        levels=tuple(trace.levels),
        p=p,
        q=q,
        constant=constant,
        noise=noise,
        image=None if start.image is None else np.array(start.image),
        evaluated=tuple(calls),
        network_times=tuple(at.t for at in trace.network_levels[analytic:]),
        noise_scale=noise_scale_of(start, schedule.process, first),
        start_map=start_map_of(start.jump, schedule.process, first),
        pixel_rows=pixel_rows,
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
    if image is not None and offset.size == np.size(image):  # statistics may be one number
        offset = offset.reshape(np.shape(image))
    return PixelRow(p=p, q=q, offset=offset)


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
    """Plans beside their stacked tables: ``p`` (B, R, R), ``q`` (B, R, E), ``constant`` and
    ``noise`` (B, R), zero-padded *in front*.

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
        self.noise = np.zeros((len(plans), rows))
        self.evaluated = np.full((len(plans), calls), -1)
        self.network_times = np.zeros((len(plans), calls))
        self.first_row = np.array([rows - plan.n_rows for plan in plans])
        for b, plan in enumerate(plans):
            r, e = rows - plan.n_rows, plan.nfe
            self.p[b, r:, r:] = plan.p
            self.q[b, r:, :e] = plan.q
            self.constant[b, r:] = plan.constant
            self.noise[b, r:] = plan.noise
            self.evaluated[b, :e] = np.array(plan.evaluated, dtype=int) + r
            self.network_times[b, :e] = plan.network_times

    def __len__(self) -> int:
        return len(self._plans)

    def __getitem__(self, index: Any) -> Any:
        return self._plans[index]
