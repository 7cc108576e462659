"""What tests share: a closed-form problem, numeric execution of rules, random schedules."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

from s3search.metrics.frechet import FrechetReference
from s3search.models.gaussian import GaussianDenoiser
from s3search.processes import NoiseProcess, edm, flow, vp_cosine, vp_discrete, vp_linear
from s3search.rules import (
    LINEAR_PREDICTIONS,
    Adams,
    AdamsTime,
    AnyRule,
    Bidirectional,
    Derivative,
    Free,
    Level,
    Momentum,
    Point,
    Relaxation,
    RelaxationKind,
    Slope,
    SlopeTerm,
    Taylor,
    UniPC,
    Variant,
    Velocity,
    level,
)
from s3search.rules.linear_form import LinearForm, data, state
from s3search.schedules.schedule import (
    Corrector,
    CorrectorKind,
    Schedule,
    Start,
    StartKind,
    Step,
)

PROCESSES: dict[str, NoiseProcess] = {
    "edm": edm(),
    "flow": flow(),
    "vp_linear": vp_linear(),
    "vp_cosine": vp_cosine(),
    "vp_discrete": vp_discrete("scaled_linear", beta_start=0.00085, beta_end=0.012),
}

SHAPE = (1, 2, 2)


class Waits(Exception):
    """A golden case whose solver the project does not have yet; the message says what misses."""


class NoSchedule(Exception):
    """A golden case that no schedule expresses; the message says what stands against it."""


EXAMPLES = settings(max_examples=60, deadline=None, derandomize=True, database=None)
"""Property tests see the same examples every time, and leave no folder behind."""


def noise(n: int = 4, *, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """(n, 1, 2, 2) unit noise."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((n, *SHAPE), generator=generator, dtype=torch.float64).to(dtype)


def gaussian(process: NoiseProcess) -> GaussianDenoiser:
    """A Gaussian over 2x2 images with a full covariance of eigenvalues 0.04 to 1.5."""
    generator = torch.Generator().manual_seed(7)
    rotation, _ = torch.linalg.qr(torch.randn((4, 4), generator=generator, dtype=torch.float64))
    mean = torch.tensor([[[0.3, -0.5], [0.1, 0.8]]], dtype=torch.float64)
    values = torch.tensor([0.04, 0.2, 0.7, 1.5], dtype=torch.float64)
    return GaussianDenoiser(process, mean, values, rotation)


def gaussian_reference(data: GaussianDenoiser) -> FrechetReference:
    """The exact statistics of the pixels of ``data``, which must have eigenvectors."""
    u = data.eigenvectors
    assert u is not None
    covariance = (u * data.eigenvalues) @ u.T
    return FrechetReference(mean=data.mean.numpy(), covariance=covariance.numpy())


@dataclass(slots=True, kw_only=True)
class Trajectory:
    """States and network answers so far, as numbers; lets one rule run outside any plan."""

    denoiser: GaussianDenoiser
    levels: list[Level] = field(default_factory=list)
    states: list[Tensor] = field(default_factory=list)
    answers: list[Tensor] = field(default_factory=list)

    def call(self, at: Level, x: Tensor) -> None:
        """Appends a point: its state and the network's answer there."""
        t = torch.full((len(x),), at.t, dtype=x.dtype)
        self.levels.append(at)
        self.states.append(x)
        self.answers.append(self.denoiser(x, t))

    def next_state(self, rule: AnyRule, to: Level) -> Tensor:
        """What ``rule`` makes of the points so far."""
        points = []
        for k, at in enumerate(self.levels):
            symbol = LinearForm.of(state(k))
            points.append(Point(at, symbol, symbol, LinearForm.of(data(k))))
        form = rule.next_state(points, to)
        total = torch.zeros_like(self.states[0])
        for symbol, c in form.terms.items():
            values = self.answers if symbol % 2 else self.states
            total = total + c * values[symbol // 2]
        return total


def exact_trajectory(process: NoiseProcess, times: Sequence[float]) -> Trajectory:
    """Points on the exact flow of `gaussian` at ``times``: a seeded history."""
    denoiser = gaussian(process)
    trajectory = Trajectory(denoiser=denoiser)
    first = times[0]
    x = noise() * process.sigma(first) + process.alpha(first) * 0.2
    for t in times:
        trajectory.call(level(process, t), denoiser.exact_flow(x, first, t))
    return trajectory


def slope(errors: Sequence[float], steps: Sequence[float]) -> float:
    """Least-squares slope of log error over log step length."""
    return float(np.polyfit(np.log(steps), np.log(errors), 1)[0])


def slope_over_halvings(error: Callable[[float], float], largest: float, n: int = 5) -> float:
    """The slope of ``error`` over ``n`` step lengths, each half the one before."""
    steps = [largest / 2**k for k in range(n)]
    return slope([error(h) for h in steps], steps)


def max_abs(x: Tensor) -> float:
    """The largest absolute entry."""
    return float(x.abs().max())


# --- random valid schedules ---


@st.composite
def relaxations(draw: st.DrawFn) -> Relaxation | None:
    """None or any kind, with a coefficient where one belongs."""
    kind = draw(st.none() | st.sampled_from(RelaxationKind))
    if kind is None:
        return None
    takes_one = kind in (RelaxationKind.LINEAR, RelaxationKind.SCALE)
    coefficient = draw(st.floats(-1, 1)) if takes_one else None
    return Relaxation(kind=kind, coefficient=coefficient)


@st.composite
def rules(draw: st.DrawFn, n_points: int, newest: bool = False) -> AnyRule:
    """Any rule that is possible after ``n_points`` points; a corrector sees the ``newest`` too."""
    starts = range(-n_points, -1) if newest else range(-n_points, 0)
    start = draw(st.sampled_from(starts))
    others = [p for p in range(-n_points, 0) if p != start]
    prediction = draw(st.sampled_from(LINEAR_PREDICTIONS))
    match draw(st.sampled_from(("taylor", "unipc", "adams", "slope", "free"))):
        case "unipc":
            points = (
                draw(st.lists(st.sampled_from(others), max_size=3, unique=True)) if others else []
            )
            variant = draw(st.sampled_from(Variant))
            return UniPC(prediction=prediction, variant=variant, start=start, points=tuple(points))
        case "adams":
            points = draw(
                st.lists(st.sampled_from([start, *others]), min_size=1, max_size=3, unique=True)
            )
            return Adams(start=start, points=tuple(points))
        case "slope":
            return draw(_slope_rules(start, others))
        case "free":  # made for no levels
            q = draw(st.lists(st.floats(-2, 2), max_size=n_points))
            return Free(p=((start, draw(st.floats(-2, 2))),), q=tuple(q), carries=False)
    order = draw(st.integers(1, min(4, n_points)))
    derivatives = []
    for d in range(1, order):
        subsets = st.lists(st.sampled_from(others), min_size=d, max_size=3, unique=True)
        derivatives.append(Derivative(points=tuple(draw(subsets)), relaxation=draw(relaxations())))
    return Taylor(prediction=prediction, order=order, start=start, derivatives=tuple(derivatives))


@st.composite
def _slope_rules(draw: st.DrawFn, start: int, others: list[int]) -> AnyRule:
    points = draw(st.lists(st.sampled_from([start, *others]), min_size=1, max_size=3, unique=True))
    made: list[AnyRule] = [
        AdamsTime(start=start, points=tuple(points)),
        Velocity(start=start, points=tuple(points)),
        Momentum(order=draw(st.integers(1, 5)), beta=0.6, points=tuple(sorted(points))),
        Slope(
            start=start,
            terms=tuple(SlopeTerm(point=p, weight=1.0 / len(points)) for p in points),
        ),
    ]
    if others:
        made.append(Bidirectional(gamma=0.5, start=start, previous=draw(st.sampled_from(others))))
    return draw(st.sampled_from(made))


@st.composite
def schedules(draw: st.DrawFn, max_steps: int = 5) -> Schedule:
    """Any valid schedule with at most ``max_steps`` steps on well separated times."""
    process = draw(st.sampled_from(list(PROCESSES.values())))
    low, high = process.time_range
    grid = [low + (high - low) * f for f in np.linspace(0.05, 0.95, 19).tolist()]
    n = draw(st.integers(1, max_steps))
    chosen = st.lists(st.sampled_from(grid), min_size=n + 1, max_size=n + 1, unique=True)
    times = sorted(draw(chosen), reverse=True)
    steps = []
    for i in range(n):
        kinds = [None, CorrectorKind.PSEUDO] + [CorrectorKind.IMPLICIT] * (i < n - 1)
        kind = draw(st.sampled_from(kinds))
        corrector = None
        if kind is not None:
            corrector = Corrector(kind=kind, rule=draw(rules(i + 2, newest=True)))
        steps.append(Step(predictor=draw(rules(i + 1)), corrector=corrector))
    kind = draw(st.sampled_from(StartKind))
    image = (((0.1, 0.2), (0.3, -0.4)),) if kind is StartKind.AVERAGE_X0 else None
    start = Start(kind=kind, image=image)
    return Schedule(process=process, times=times, steps=steps, start=start)
