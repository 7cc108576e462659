"""A pasted list makes our images: in diffusers' own schedulers and by k-diffusion's formulas."""

import runpy
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from s3search.errors import InvalidSchedule
from s3search.formats.exporters import ExportRequest, LossReport, export_schedule
from s3search.processes import NoiseProcess, edm, flow, vp_discrete
from s3search.schedules import published
from s3search.schedules.published.listed import LISTED_SOLVERS
from s3search.schedules.schedule import Schedule
from s3search.solvers.plan import compile_plan
from s3search.solvers.sample import sample
from tests.formats.exporters.files import SigmaDenoiser
from tests.support.helpers import gaussian, max_abs, noise
from tests.support.listed import K_SAMPLERS, in_diffusers, in_k_diffusion

_TIMES: dict[str, tuple[NoiseProcess, tuple[float, ...]]] = {
    "edm": (edm(), (80.0, 11.0, 3.0, 0.9, 0.07)),
    "vp": (vp_discrete(), (999.0, 811.0, 560.0, 302.0, 77.0)),
    "flow": (flow(), (1.0, 0.93, 0.71, 0.42, 0.11)),
}


def _schedule(model: str, solver: str) -> Schedule:
    process, times = _TIMES[model]
    return LISTED_SOLVERS[solver].on(process, times)


def _expected(schedule: Schedule) -> Tensor:
    return sample(gaussian(schedule.process), compile_plan(schedule), noise())


def _exported(schedule: Schedule, folder: Path) -> tuple[dict[str, Any], LossReport]:
    path = folder / "sigmas.py"
    made = export_schedule("sigmas", ExportRequest(schedule=schedule, output=path))
    return runpy.run_path(str(path)), made.report


@pytest.mark.filterwarnings("ignore::FutureWarning:diffusers.*", "ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("model", "solver", "tolerance"),
    [
        ("edm", "euler", 2e-5),
        ("vp", "euler", 2e-4),
        ("vp", "dpmpp_2m", 2e-4),
        ("flow", "euler", 2e-5),
    ],
)
def test_diffusers_own_scheduler_makes_our_images(
    model: str, solver: str, tolerance: float, tmp_path: Path
) -> None:
    schedule = _schedule(model, solver)
    names, report = _exported(schedule, tmp_path)
    assert not report.approximated and not report.refused
    assert names["sigmas"][-1] == 0.0 and len(names["sigmas"]) == schedule.nfe + 1
    denoiser = gaussian(schedule.process)
    found = in_diffusers(tmp_path / "sigmas.py", names, denoiser, noise())
    expected = _expected(schedule)
    assert max_abs(found - expected) < tolerance * max_abs(expected)


@pytest.mark.parametrize("solver", K_SAMPLERS)
@pytest.mark.parametrize("model", _TIMES)
def test_k_diffusions_own_function_makes_our_images(
    model: str, solver: str, tmp_path: Path
) -> None:
    process = _TIMES[model][0]
    if not LISTED_SOLVERS[solver].exists_for(process):
        return
    schedule = _schedule(model, solver)
    names, _ = _exported(schedule, tmp_path)
    function = {"uni_pc": "unipc", "uni_pc_bh2": "unipc_bh2"}.get(solver, solver)
    assert f".sample_{function}(" in (tmp_path / "sigmas.py").read_text()
    found = in_k_diffusion(solver, names, SigmaDenoiser(process), noise())
    end = LISTED_SOLVERS[solver].end_sigma  # the image is y = x / alpha there
    assert max_abs(found - _expected(schedule)) < 1e-9 + end**2


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
    own = LISTED_SOLVERS["dpmpp_2m"].on(process, (999.0, 700.0, 300.5))
    _, report = _exported(own, tmp_path)
    rounding, scale = report.approximated
    assert "whole training steps" in rounding.what and rounding.measured == 0.5
    assert "begins with unit noise" in scale.what and 0 < scale.measured < 1
