"""A schedule run on symbols: every state as a linear form, and the level of every network call.

Symbols are the states x_k, the predictions D_j, and c, the mean image of an analytic start.  A
pseudo corrector adds a row at the same level, an implicit one a row and a call.  Every row carries
a constant noise and a constant image exactly,

    sum_k p[r, k] sigma_k = sigma_r,      sum_k p[r, k] alpha_k + sum_j q[r, j] = alpha_r

which is checked here, before an analytic start is written out; a rule whose published form does
not (Euler in a curved time) says so by `carries_constants`. What a row carries of earlier noise
and what it draws anew, xi_r and draws of earlier rows used again, are independent: the squares of
both add up to sigma_r^2. A draw used again is written out in the states that it made. Where a call
has a network time of its own, D = c for the image c and eps = n for the noise n no longer follow
from each other, and a row of either prediction carries what it assumes: with (alpha', sigma') the
level of the network time, eps = n means D_j = (alpha_j c + (sigma_j - sigma') n) / alpha'.

A row made with EMS statistics (DPM-Solver-v3) has weights that differ per pixel.  Statistics are
measured, so such a row carries nothing exactly; its weights must be finite.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import cast

import numpy as np

from s3search.errors import IncompatibleStatistics, InvalidSchedule
from s3search.rules import INVARIANT_TOLERANCE, AnyRule, EmsStatistics, Level, Point, level
from s3search.rules.linear_form import (
    CONSTANT,
    FRESH,
    ZERO,
    Coefficient,
    LinearForm,
    combine,
    data,
    noise,
    state,
)
from s3search.schedules.schedule import CorrectorKind, Schedule, StartKind, Step


class Trace:
    """What a schedule does, row by row and call by call, with the EMS statistics that it names.

    Call 0 is the first prediction even where that is analytic (`analytic_prediction`).
    """

    def __init__(self, schedule: Schedule, statistics: EmsStatistics | None) -> None:
        first = level(schedule.process, schedule.times[0])
        begins = schedule.start.noise
        below = first if begins is None else begins.below(schedule.process, None, first)
        self.levels = [below]  # of every row
        self.rows: list[LinearForm] = [ZERO]  # noise(r) is what row r draws, in no other row
        self.evaluated: list[int] = []  # the row of every call
        self.network_levels: list[Level] = []  # of every call
        self._schedule, self._ems = schedule, _named_statistics(schedule, statistics)
        self._history: list[Point] = []
        begun = LinearForm.of(state(0))
        if begins is not None:
            scale = first.alpha / below.alpha
            fresh = LinearForm.of(FRESH) * begins.weight(below, first)
            begun = self._appended(begun * scale + fresh, first)
        self._call(first, begun, schedule.start.network_time)
        for i, step in enumerate(schedule.steps):
            to = level(schedule.process, schedule.times[i + 1])
            try:
                self._advance(step, to, is_last=i == schedule.n_steps - 1)
            except (InvalidSchedule, IncompatibleStatistics) as error:
                raise type(error)(f"steps[{i}]: {error}") from error

    def _advance(self, step: Step, to: Level, *, is_last: bool) -> None:
        corrector = step.corrector
        if step.compensation is not None:
            self._history[-1] = step.compensation.compensated(self._history)
        down, fresh = to, ZERO
        if step.noise is not None:
            past = [point.level for point in self._history]
            down = step.rule_target(self._schedule.process, past, to)
            fresh = LinearForm.of(FRESH) * step.noise.weight(down, to)
        new = self._append(step.predictor, down, to, fresh)
        drawn = None
        if FRESH in fresh.terms or step.predictor.draws_noise:
            drawn = LinearForm.of(noise(len(self.rows) - 1))
        if is_last and corrector is None:
            return
        self._call(to, new, step.network_time, drawn)
        if corrector is None:
            return
        predicted = self._history[-1]
        if drawn is not None:
            fresh = fresh.substitute(FRESH, drawn)
        corrected = self._append(corrector.rule, down, to, fresh)
        self._history[-1] = replace(predicted, state=corrected)
        if corrector.kind is CorrectorKind.IMPLICIT:
            self._history.pop()
            self._call(to, corrected, step.network_time, drawn)

    def _append(self, rule: AnyRule, down: Level, to: Level, fresh: LinearForm) -> LinearForm:
        """The state of a rule that goes to ``down``, and of what is added on the way up to
        ``to``.
        """
        if self._ems is not None and rule.needs_ems:
            row = rule.next_state_with(self._ems, self._history, down)
            _check_finite(row, to)
        else:
            row = rule.next_state(self._history, down)
            if rule.carries_constants:
                self._check(row, down)
            elif not all(map(math.isfinite, _scalar_terms(row).values())):
                raise InvalidSchedule(f"the row for t = {to.t} has a weight that is not finite")
        return self._appended(row + fresh if fresh.terms else row, to)

    def _appended(self, row: LinearForm, to: Level) -> LinearForm:
        """The state of a row, whose own draw gets the row's number."""
        r = len(self.rows)
        terms = {symbol: c for symbol, c in row.terms.items() if symbol != FRESH}
        parts: list[tuple[Coefficient, LinearForm]] = [(1.0, LinearForm(terms))]
        for symbol in [symbol for symbol in terms if symbol < FRESH and symbol % 2 == 0]:
            again = terms.pop(symbol)
            parts.append((again, self._draw_of(-symbol // 2 - 1)))
        own = row.terms.get(FRESH, 0.0)
        if own:
            parts.append((own, LinearForm.of(noise(r))))
        self.rows.append(combine(parts) if len(parts) > 1 else row)
        self.levels.append(to)
        return LinearForm.of(state(r))

    def _draw_of(self, r: int) -> LinearForm:
        """The unit noise that row r drew: what its state has beyond the rest of the row."""
        row = self.rows[r]
        weight = _scalar_terms(row)[noise(r)]
        rest = LinearForm({symbol: c for symbol, c in row.terms.items() if symbol != noise(r)})
        return combine(((1.0 / weight, LinearForm.of(state(r))), (-1.0 / weight, rest)))

    def _call(
        self,
        at: Level,
        where: LinearForm,
        network_time: float | None,
        drawn: LinearForm | None = None,
    ) -> None:
        process = self._schedule.process
        called_at = None if network_time is None else level(process, network_time)
        prediction = LinearForm.of(data(len(self.evaluated)))
        self._history.append(Point(at, where, where, prediction, called_at, drawn))
        self.evaluated.append(len(self.rows) - 1)
        self.network_levels.append(called_at or at)

    def _check(self, row: LinearForm, to: Level) -> None:
        exact_data = [(0.0, 1.0)] * len(self.evaluated)
        error, size = self._lost(row, to, exact_data)
        if not error <= INVARIANT_TOLERANCE * size:
            error, size = self._lost(row, to, self._predictions_of_exact_noise())
        if not error <= INVARIANT_TOLERANCE * size:
            raise InvalidSchedule(
                f"the row for t = {to.t} does not carry a constant image and noise "
                f"(off by {error:.1e})"
            )

    def _predictions_of_exact_noise(self) -> list[tuple[float, float]]:
        """The noise and image in every D if eps is exact; (0, 1) at a state's own time."""
        found = []
        for row, called_at in zip(self.evaluated, self.network_levels, strict=True):
            at = self.levels[row]
            is_shifted = called_at != at
            noise = (at.sigma - called_at.sigma) / called_at.alpha if is_shifted else 0.0
            found.append((noise, at.alpha / called_at.alpha if is_shifted else 1.0))
        return found

    def _lost(
        self, row: LinearForm, to: Level, predictions: Sequence[tuple[float, float]]
    ) -> tuple[float, float]:
        """What the row loses of noise or image with such predictions, and the row's size."""
        carried, drawn, image, size = 0.0, 0.0, 0.0, 1.0
        for symbol, c in _scalar_terms(row).items():
            if symbol % 2:
                own_noise, own_image = predictions[symbol // 2]
                carried += c * own_noise
                image += c * own_image
                size += abs(c) * (abs(own_noise) + own_image)
            elif symbol < 0:
                drawn = math.hypot(drawn, c)
                size += abs(c)
            else:
                at = self.levels[symbol // 2]
                carried += c * at.sigma
                image += c * at.alpha
                size += abs(c) * (at.alpha + at.sigma)
        carried = math.hypot(carried, drawn) if drawn else carried
        return max(abs(carried - to.sigma), abs(image - to.alpha)), size


def analytic_prediction(kind: StartKind, first: Level) -> LinearForm:
    """D at the first time without a call, as a form in x_0 and the constant image."""
    if kind is StartKind.AVERAGE_X0:
        return LinearForm.of(CONSTANT)
    if kind is StartKind.ZERO_X0:
        return ZERO
    # eps = x / sqrt(alpha^2 + sigma^2), so D = (x - sigma eps) / alpha
    norm = (first.alpha**2 + first.sigma**2) ** 0.5
    return combine((((1.0 - first.sigma / norm) / first.alpha, LinearForm.of(state(0))),))


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


def _scalar_terms(row: LinearForm) -> Mapping[int, float]:
    """The terms of a row made without statistics; arrays come from rules with them alone."""
    return cast("Mapping[int, float]", row.terms)


def _check_finite(row: LinearForm, to: Level) -> None:
    if not all(np.isfinite(c).all() for c in row.terms.values()):
        raise IncompatibleStatistics(
            f"the row for t = {to.t} has weights that are not finite; these EMS statistics grow "
            "too fast between its times"
        )
