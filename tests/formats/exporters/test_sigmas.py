"""A pasted list makes our images: in diffusers' own schedulers and by k-diffusion's formulas."""

import runpy
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor

from s3search.errors import InvalidSchedule
from s3search.formats.exporters import ExportRequest, LossReport, export_schedule
from s3search.processes import Flow, NoiseProcess, VpDiscrete, edm, flow, vp_discrete
from s3search.schedules import published
from s3search.schedules.published.listed import LISTED_SOLVERS
from s3search.schedules.schedule import Schedule
from s3search.solvers.plan import compile_plan
from s3search.solvers.sample import sample
from tests.formats.exporters.files import SigmaDenoiser
from tests.support.helpers import gaussian, max_abs, noise

_TIMES: dict[str, tuple[NoiseProcess, tuple[float, ...]]] = {
    "edm": (edm(), (80.0, 11.0, 3.0, 0.9, 0.07, 0.0)),
    "vp": (vp_discrete(), (999.0, 811.0, 560.0, 302.0, 77.0, -1.0)),
    "flow": (flow(), (1.0, 0.93, 0.71, 0.42, 0.11, 0.0)),
}


def _schedule(model: str, solver: str) -> Schedule:
    process, times = _TIMES[model]
    own = LISTED_SOLVERS[solver]
    return own.on(process, (own.first_time(process), *times[1:]))


def _expected(schedule: Schedule) -> Tensor:
    return sample(gaussian(schedule.process), compile_plan(schedule), noise())


def _exported(schedule: Schedule, folder: Path) -> tuple[dict[str, Any], LossReport]:
    path = folder / "sigmas.py"
    made = export_schedule("sigmas", ExportRequest(schedule=schedule, output=path))
    return runpy.run_path(str(path)), made.report


# ---- diffusers


class _Epsilon:
    """The Gaussian of a VP or EDM model as a network that predicts noise at diffusers' input."""

    def __init__(self, process: NoiseProcess) -> None:
        self.process, self.denoiser = process, gaussian(process)

    def __call__(self, x: Tensor, t: float, sigma: float) -> Tensor:
        if isinstance(self.process, VpDiscrete):  # the input is x itself
            alpha, own = self.process.alpha(t), self.process.sigma(t)
            return (x - alpha * self.denoiser(x, x.new_full((len(x),), t))) / own
        state = x * (sigma * sigma + 1) ** 0.5
        return (state - self.denoiser(state, x.new_full((len(x),), sigma))) / sigma


def _in_diffusers(scheduler: Any, process: NoiseProcess, **listed: Any) -> Tensor:
    """The loop that every pipeline of diffusers has."""
    scheduler.set_timesteps(**listed)
    network = _Epsilon(process)
    x = noise() * scheduler.init_noise_sigma
    for i, t in enumerate(scheduler.timesteps):
        seen = scheduler.scale_model_input(x, t)
        answer = network(seen, float(t), float(scheduler.sigmas[i]))
        x = scheduler.step(answer, t, x).prev_sample
    return x


def _flow_in_diffusers(scheduler: Any, **listed: Any) -> Tensor:
    scheduler.set_timesteps(**listed)
    denoiser, x = gaussian(flow()), noise()
    for t in scheduler.timesteps:
        time = float(t) / 1000
        velocity = (x - denoiser(x, x.new_full((len(x),), time))) / time
        x = scheduler.step(velocity, t, x).prev_sample
    return x


def _scheduler(text: str, model: str, names: dict[str, Any]) -> Any:
    """The scheduler that the file's comment names, from the config of some pipeline's own one."""
    diffusers = pytest.importorskip("diffusers")
    name = text.partition("pipe.scheduler = ")[2].partition(".from_config")[0]
    if model == "flow":
        own = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    else:
        own = diffusers.DDIMScheduler(timestep_spacing="leading", steps_offset=1)
    return getattr(diffusers, name).from_config(own.config, **names["config"])


@pytest.mark.filterwarnings("ignore::FutureWarning:diffusers.*", "ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("model", "solver", "tolerance"),
    [
        ("edm", "euler", 2e-5),
        ("vp", "euler", 2e-4),
        ("vp", "dpmpp_2m", 2e-4),
        ("flow", "euler", 2e-5),
        ("flow", "unipc", 1e-4),
    ],
)
def test_diffusers_own_scheduler_makes_our_images(
    model: str, solver: str, tolerance: float, tmp_path: Path
) -> None:
    schedule = _schedule(model, solver)
    names, report = _exported(schedule, tmp_path)
    assert not report.approximated and not report.refused
    text = (tmp_path / "sigmas.py").read_text()
    scheduler = _scheduler(text, model, names)
    sigmas = names["sigmas"]
    assert sigmas[-1] == 0.0 and len(sigmas) == schedule.nfe + 1
    takes = text.partition("pipe(..., ")[2].partition(").images")[0]
    key, _, value = takes.partition("=")
    listed = {key: eval(value, {**names, "numpy": numpy})}
    if model == "flow":
        found = _flow_in_diffusers(scheduler, **listed)
    else:
        found = _in_diffusers(scheduler, schedule.process, **listed)
    expected = _expected(schedule)
    assert max_abs(found - expected) < tolerance * max_abs(expected)


# ---- k-diffusion and ComfyUI, by their published formulas


def _euler(model: Any, x: Tensor, sigmas: Tensor) -> Tensor:
    for s, t in pairwise(sigmas):
        x = x + (t - s) * (x - model(x, s.expand(len(x)))) / s
    return x


def _dpmpp_2m(model: Any, x: Tensor, sigmas: Tensor) -> Tensor:
    """arXiv:2211.01095, alg. 2, with its last step of first order."""
    old = None
    for i, (s, t) in enumerate(pairwise(sigmas)):
        denoised = model(x, s.expand(len(x)))
        mixed = denoised
        if old is not None and t > 0:
            r = (sigmas[i - 1] / s).log() / (s / t).log()
            mixed = denoised + (denoised - old) / (2 * r)
        x, old = (t / s) * x + (1 - t / s) * mixed, denoised
    return x


def _ipndm(model: Any, x: Tensor, sigmas: Tensor) -> Tensor:
    """arXiv:2204.13902, app. B: Adams-Bashforth with the weights of equal steps."""
    weights = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12))
    weights = (*weights, (55 / 24, -59 / 24, 37 / 24, -9 / 24))
    slopes: list[Tensor] = []
    for s, t in pairwise(sigmas):
        denoised = model(x, s.expand(len(x)))
        slopes.insert(0, (x - denoised) / s)
        used = weights[min(len(slopes), 4) - 1]
        mean = sum(w * slope for w, slope in zip(used, slopes, strict=False))
        x = denoised if t == 0 else x + (t - s) * mean
    return x


_WRITTEN = {"euler": _euler, "dpmpp_2m": _dpmpp_2m, "ipndm": _ipndm}


@pytest.mark.parametrize("solver", _WRITTEN)
@pytest.mark.parametrize("model", _TIMES)
def test_k_diffusions_own_function_makes_our_images(
    model: str, solver: str, tmp_path: Path
) -> None:
    process = _TIMES[model][0]
    if not LISTED_SOLVERS[solver].exists_for(process):
        return
    schedule = _schedule(model, solver)
    names, _ = _exported(schedule, tmp_path)
    assert f"sampling.sample_{solver}(" in (tmp_path / "sigmas.py").read_text()
    sigmas = torch.tensor(names["sigmas"], dtype=torch.float64)
    found = _WRITTEN[solver](SigmaDenoiser(process), noise() * sigmas[0], sigmas)
    assert max_abs(found - _expected(schedule)) < 1e-9


# ---- what is said


def test_the_file_says_where_the_list_comes_from(tmp_path: Path) -> None:
    held_out = {"value": 0.25, "n_images": 5000}
    schedule = _schedule("edm", "euler").model_copy(
        update={
            "provenance": {
                "study": "mine",
                "metric": "frechet",
                "extractor": "inception",
                "held_out": held_out,
            }
        }
    )
    _exported(schedule, tmp_path)
    text = (tmp_path / "sigmas.py").read_text()
    assert "# study mine: frechet distance 0.2500 of 5000 held-out images" in text
    assert "# DDIM (Euler) at sigmas 80, 11, 3, 0.9, 0.07: 5 network calls" in text


def test_other_schedules_are_refused(tmp_path: Path) -> None:
    for schedule in (
        published.dpmpp_2m(edm(), nfe=4),  # ends above 0
        published.unipc(edm(), nfe=4),
        published.with_guidance(_schedule("edm", "euler"), [1.0] * 5),
    ):
        with pytest.raises(InvalidSchedule, match=r"steps: --format sigmas is for Euler, DPM-S"):
            _exported(schedule, tmp_path)


def test_what_diffusers_does_another_way_is_measured(tmp_path: Path) -> None:
    process = vp_discrete("scaled_linear", beta_start=0.00085, beta_end=0.012)
    own = LISTED_SOLVERS["dpmpp_2m"].on(process, (999.0, 700.0, 300.5, -1.0))
    _, report = _exported(own, tmp_path)
    rounding, scale = report.approximated
    assert "whole training steps" in rounding.what and rounding.measured == 0.5
    assert "begins with unit noise" in scale.what and 0 < scale.measured < 1
    assert not isinstance(process, Flow)
