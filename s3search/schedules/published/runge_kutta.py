"""Runge-Kutta methods in rho = sigma / alpha: rhoRK of DEIS (arXiv:2204.13902, sec. 3.2),
DPM-Solver-2 in EDM's form (k-diffusion, arXiv:2206.00364) and PNDM (arXiv:2202.09778).

Every stage is a step to its own level, or a corrector at a level that was evaluated before.
"""

from collections.abc import Sequence
from itertools import pairwise

from s3search.errors import InvalidSchedule
from s3search.processes import NoiseProcess
from s3search.rules import Adams, Slope, SlopeTerm, refuse_pure_noise
from s3search.schedules.published.common import on_times, paired_calls
from s3search.schedules.published.dpm import ddim_steps
from s3search.schedules.schedule import Corrector, CorrectorKind, Schedule, Step
from s3search.schedules.spacing import End, Spacing, grid, time_of_ratio

_Row = tuple[float, ...]

TABLEAUS: dict[str, tuple[_Row, tuple[_Row, ...], _Row]] = {
    "euler": ((0,), ((),), (1,)),
    "midpoint": ((0, 1 / 2), ((), (1 / 2,)), (0, 1)),
    "heun2": ((0, 1), ((), (1,)), (1 / 2, 1 / 2)),
    "kutta3": ((0, 1 / 2, 1), ((), (1 / 2,), (-1, 2)), (1 / 6, 2 / 3, 1 / 6)),
    "ralston3": ((0, 1 / 2, 3 / 4), ((), (1 / 2,), (0, 3 / 4)), (2 / 9, 1 / 3, 4 / 9)),
    "heun3": ((0, 1 / 3, 2 / 3), ((), (1 / 3,), (0, 2 / 3)), (1 / 4, 0, 3 / 4)),
    "houwen3": ((0, 8 / 15, 2 / 3), ((), (8 / 15,), (1 / 4, 5 / 12)), (1 / 4, 0, 3 / 4)),
    "rk4": (
        (0, 1 / 2, 1 / 2, 1),
        ((), (1 / 2,), (0, 1 / 2), (0, 0, 1)),
        (1 / 6, 1 / 3, 1 / 3, 1 / 6),
    ),
}
"""Explicit methods by name: c, A and b of their Butcher tableaus, c not falling."""


def runge_kutta_on(
    process: NoiseProcess, outer: Sequence[float], method: str
) -> tuple[tuple[float, ...], tuple[Step, ...]]:
    """Times with the inner nodes filled in, and the steps, of a Runge-Kutta method in rho.

    A step of s stages makes s calls; a stage or an end that returns to a level already evaluated
    is an implicit corrector there (the last one a pseudo corrector: nothing follows it).
    """
    c, *_ = _tableau(method)
    times = [outer[0]]
    for s, t in pairwise(outer):
        first, last = _ratio(process, s), _ratio(process, t)
        inner = sorted({node for node in c if 0 < node < 1})
        times += [time_of_ratio(process, first + node * (last - first)) for node in inner]
        times.append(t)
    n = len(outer) - 1
    steps = [step for i in range(n) for step in runge_kutta_steps(method, is_last=i == n - 1)]
    return tuple(times), tuple(steps)


def runge_kutta_steps(method: str, *, is_last: bool = False) -> tuple[Step, ...]:
    """The steps of one Runge-Kutta step, one for every distinct node above 0."""
    c, a, b = _tableau(method)
    nodes = (*c[1:], 1.0)
    rows = (*a[1:], b)
    seen = [0.0]  # nodes of the points in the history, the start first
    owner: list[int] = [0]  # the stage evaluated at each of these points
    steps: list[Step] = []
    for stage, (node, row) in enumerate(zip(nodes, rows, strict=True), start=1):
        rule = _stage(row, seen, owner, c)
        if node != seen[-1]:
            steps.append(Step(predictor=rule))
            seen.append(node)
            owner.append(stage)
            continue
        is_end = is_last and stage == len(c)
        kind = CorrectorKind.PSEUDO if is_end else CorrectorKind.IMPLICIT
        steps[-1] = Step(predictor=steps[-1].predictor, corrector=Corrector(kind=kind, rule=rule))
        owner[-1] = stage
    return tuple(steps)


def _stage(row: _Row, seen: list[float], owner: list[int], c: _Row) -> Slope:
    """The mean slope of one row; a stage whose call was replaced enters by the secant to the state
    it led to.
    """
    total = sum(row)
    terms = []
    for stage, weight in enumerate(row):
        if weight:
            secant = stage not in owner
            point = seen.index(c[stage]) - len(seen)
            terms.append(SlopeTerm(point=point, weight=weight / total, secant=secant))
    return Slope(start=-len(seen), terms=tuple(terms))


def _tableau(method: str) -> tuple[_Row, tuple[_Row, ...], _Row]:
    if method not in TABLEAUS:
        raise InvalidSchedule(f"unknown Runge-Kutta method {method!r}; known: {sorted(TABLEAUS)}")
    return TABLEAUS[method]


def dpm2(
    process: NoiseProcess,
    *,
    nfe: int,
    r: float = 0.5,
    spacing: Spacing | str = "karras",
    end: End | None = None,
) -> Schedule:
    """DPM-Solver-2 in EDM's form (k-diffusion's dpm_2): two calls a step, one at the geometric
    mean of the two noise levels.

    ``nfe`` must be even for the `stop` end and odd for `denoise`.
    """
    end, clean = paired_calls("dpm2", nfe, end)
    refuse_pure_noise(process)
    outer = grid(process, (nfe + clean) // 2, spacing, end)
    times, steps = dpm2_on(process, outer[: len(outer) - clean], r)
    if clean:
        times, steps = (*times, outer[-1]), (*steps, *ddim_steps(1))
    return on_times(process, times, steps)


def dpm2_on(
    process: NoiseProcess, outer: Sequence[float], r: float = 0.5
) -> tuple[tuple[float, ...], tuple[Step, ...]]:
    """Times with an inner node at the fraction ``r`` of every step in log rho, and the steps."""
    if not 0 < r < 1:
        raise InvalidSchedule(f"dpm2: the inner node lies at 0 < r < 1 of a step, asked for {r=}")
    times = [outer[0]]
    for s, t in pairwise(outer):
        times += [process.time_of_lam((1.0 - r) * process.lam(s) + r * process.lam(t)), t]
    second = 0.5 / r
    weights = ((-2, 1.0 - second), (-1, second))
    end = Slope(start=-2, terms=tuple(SlopeTerm(point=p, weight=w) for p, w in weights if w))
    return tuple(times), (Step(predictor=Adams()), Step(predictor=end)) * (len(outer) - 1)


def s_pndm_steps(n: int) -> tuple[Step, ...]:
    """S-PNDM (arXiv:2202.09778): Heun's step, then second-order linear multistep; n + 1 calls."""
    first = runge_kutta_steps("heun2", is_last=n == 1)
    return first + (Step(predictor=Slope.equal_steps((-1, -2))),) * (n - 1)


def plms_steps(n: int) -> tuple[Step, ...]:
    """PLMS as in latent diffusion and diffusers: Heun's step, then linear multistep of orders 2, 3
    and 4 with constant-step weights; n + 1 calls.
    """
    first = runge_kutta_steps("heun2", is_last=n == 1)
    orders = (min(i + 1, 4) for i in range(1, n))
    return first + tuple(
        Step(predictor=Slope.equal_steps(tuple(range(-1, -order - 1, -1)))) for order in orders
    )


def f_pndm_steps(n: int) -> tuple[Step, ...]:
    """F-PNDM (arXiv:2202.09778, alg. 2): three Runge-Kutta steps, then fourth-order multistep.

    The first three of the n steps have an inner time each, so there are n + 3 times after the
    first, and n + 9 calls.
    """
    steps = [
        step for i in range(min(n, 3)) for step in runge_kutta_steps("rk4", is_last=i == n - 1)
    ]
    for i in range(3, n):
        # grid points newest first: each of the first three steps left an inner point behind
        points = [-1 - j - max(0, j + 3 - i) for j in range(4)]
        steps.append(Step(predictor=Slope.equal_steps(points)))
    return tuple(steps)


def _ratio(process: NoiseProcess, t: float) -> float:
    return process.sigma(t) / process.alpha(t)
