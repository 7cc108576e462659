"""A plan in the parametrization of k-diffusion and ComfyUI.

They keep y = x / alpha, name levels by s = sigma / alpha, and call model(y, s) -> D.  Flow models
are kept as they are there, x = s noise + (1 - s) x_0, so that y = x and s = t.  With a_r = alpha
(or 1 for a flow) of row r, and a = 1 for the last, which is the image itself:

    y_r = sum_k (p[r, k] a_k / a_r) y_k + sum_j (q[r, j] / a_r) D_j + r_const[r] / a_r c
          + noise[r] / a_r noise_sampler(s, s_r)        s of the row before
    D_j = model(y_r a_r / a', s')        at the level (a', s') of the network time

Nothing is approximated, but that noise of a start is drawn with the first state, which these
programs make by themselves.  Sums over pixels (Gaussian jumps) and weights per pixel
(DPM-Solver-v3) have no place in such a table.
"""

import math
from dataclasses import dataclass
from typing import Any

from s3search.errors import InvalidSchedule
from s3search.processes import Flow
from s3search.rules import Level
from s3search.schedules.schedule import ModelPatch, Schedule
from s3search.schedules.start_noise import with_one_draw
from s3search.solvers.image_to_image import ImageToImageStart, image_to_image_start
from s3search.solvers.plan import Plan, compile_plan

Weights = tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SigmaRow:
    """One state: the weights that are not 0, by index, the (scale, sigma) of a call on it, and the
    (weight, sigma, next sigma) of what it draws.
    """

    p: Weights
    q: Weights
    constant: float
    call: tuple[float, float] | None
    noise: tuple[float, float, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SigmaTable:
    """A plan in sigmas; the legend stands in the module's docstring.

    ``sigmas`` names the levels from the noisiest to the image, for which it says 0, each once;
    ``guidance`` has one scale per call where the schedule carries them.
    """

    sigmas: tuple[float, ...]
    rows: tuple[SigmaRow, ...]
    image: Any
    guidance: tuple[float, ...] | None
    begin: float = 1.0  # the factor on the runtime's first state, noise times the first sigma

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as it is written into a file."""
        begin = {} if self.begin == 1.0 else {"begin": self.begin}
        return {
            "sigmas": [*self.sigmas],
            "rows": [
                {
                    "p": row.p,
                    "q": row.q,
                    "constant": row.constant,
                    "call": row.call,
                    **({} if row.noise is None else {"noise": row.noise}),
                }
                for row in self.rows
            ],
            "image": self.image,
            "guidance": self.guidance,
            **begin,
        }


def sigma_tables(schedule: Schedule, form: str) -> tuple[SigmaTable, ...]:
    """The table of the whole schedule, and of every later level that a run may begin at.

    Raises `InvalidSchedule` for what no such table holds; ``form`` is the format's name.
    """
    refuse_unsayable(schedule, form)
    patch = schedule.model_patch or ModelPatch()
    tables = [sigma_table(compile_plan(with_one_draw(schedule)), patch.guidance_scale)]
    for inner in inner_starts(schedule):
        plan = compile_plan(inner.schedule)
        scales = patch.guidance_scale
        tables.append(sigma_table(plan, None if scales is None else scales[-plan.nfe :]))
    return tuple(tables)


def inner_starts(schedule: Schedule) -> tuple[ImageToImageStart, ...]:
    """What is left from each level after the first; none with network times of their own."""
    if schedule.has_network_times:
        return ()
    starts = sorted(set(schedule.times[1:-1]) - set(schedule.times[-1:]), reverse=True)
    return tuple(image_to_image_start(schedule, t) for t in starts)


def sigma_table(plan: Plan, guidance: tuple[float, ...] | None = None) -> SigmaTable:
    """The table of one plan whose weights are numbers."""
    last = plan.n_rows - 1
    scale = [_scale(plan, at) for at in plan.levels]
    scale[last] = 1.0
    calls = dict(zip(plan.evaluated, plan.call_levels, strict=True))
    rows = []
    for r in range(plan.n_rows):
        called_at = calls.get(r)
        p = [(k, w * scale[k] / scale[r]) for k, w in enumerate(plan.p[r, :r].tolist()) if w]
        q = [(j, w / scale[r]) for j, w in enumerate(plan.q[r].tolist()) if w]
        call = None
        if called_at is not None:
            call = scale[r] / _scale(plan, called_at), sigma_of(plan, called_at)
        constant = float(plan.constant[r]) / scale[r]
        noise = None
        if weight := float(plan.noise[r]):
            before, after = (sigma_of(plan, at) for at in plan.levels[r - 1 : r + 1])
            noise = (weight / scale[r], before, after)
        rows.append(SigmaRow(p=tuple(p), q=tuple(q), constant=constant, call=call, noise=noise))
    levels = sorted({sigma_of(plan, at) for at in plan.levels[:-1]}, reverse=True)
    end = sigma_of(plan, plan.levels[last])
    return SigmaTable(
        sigmas=(*(sigma for sigma in levels if sigma != end), 0.0),
        rows=tuple(rows),
        image=None if plan.image is None else plan.image.tolist(),
        guidance=guidance,
        begin=plan.noise_scale / plan.levels[0].sigma,
    )


def sigma_of(plan: Plan, at: Level) -> float:
    """The name of a level: sigma / alpha, but t for a flow."""
    return at.sigma if isinstance(plan.process, Flow) else at.sigma / at.alpha


def refuse_unsayable(schedule: Schedule, form: str) -> None:
    """Raises `InvalidSchedule` for what a table of numbers in sigmas cannot hold."""
    other = "use --format json or diffusers"
    if schedule.start.jump is not None:
        raise InvalidSchedule(
            f"start.jump: --format {form} has no place for a Gaussian jump, which mixes pixels "
            f'before the first call; {other}, or search with starts = ["network"]'
        )
    if schedule.statistics is not None:
        raise InvalidSchedule(
            f"statistics: --format {form} holds numbers, and DPM-Solver-v3 steps have weights per "
            f"pixel; {other}"
        )
    refuse_changed_network(schedule, form)


def refuse_changed_network(schedule: Schedule, form: str) -> None:
    """Raises `InvalidSchedule` for a patch of the network itself, guidance aside."""
    patch = schedule.model_patch or ModelPatch()
    for name in ("skip_layers", "skip_scale"):
        if getattr(patch, name) is not None:
            raise InvalidSchedule(
                f"model_patch.{name}: the schedule was searched with a changed network, which "
                f"--format {form} cannot replay; use --format json and patch the network "
                "yourself, or search without it"
            )


def _scale(plan: Plan, at: Level) -> float:
    if isinstance(plan.process, Flow):
        return 1.0
    assert math.isfinite(at.lam) or at.alpha > 0.0, "only a flow has alpha = 0"
    return at.alpha
