"""Imports of diffusers' stochastic schedulers, run on the noise of their golden cases."""

import json
from pathlib import Path
from typing import Any

import pytest

from s3search.errors import InvalidSchedule
from s3search.formats.importers import Request, import_schedule
from s3search.formats.importers.diffusers import INEXACT, SCHEDULERS, schedule_of
from s3search.solvers.plan import compile_plan
from s3search.solvers.sample import run_plan
from s3search.solvers.step_noise import given
from tests.support.golden.cases import case_files, mixture, tensor
from tests.support.golden.diffusers import Thresholded, thresholds

_CASES = {key: path for key, path in case_files().items() if path.parent.name == "sde_diffusers"}
_USUAL_TAU = {"type": "interval", "low": 200, "high": 800, "inside": 1.0, "outside": 0.0}
_TOLERANCE = 1e-7  # processes of a table interpolate their logarithm


@pytest.mark.parametrize("path", _CASES.values(), ids=_CASES.keys())
def test_an_import_makes_what_the_scheduler_made(path: Path) -> None:
    case = json.loads(path.read_text())
    solver = case["solver"]
    if solver["name"] not in SCHEDULERS:
        pytest.skip(f"not imported: {solver['name']}")
    if case.get("upstream_defect"):
        pytest.skip(f"published code is defective here: {case['upstream_defect']}")
    config = {**solver["config"], **_of_the_step(solver["step"]), **_tau(solver.get("tau"))}
    arguments = dict(solver["set_timesteps"])
    timesteps, sigmas = arguments.pop("timesteps", None), arguments.pop("sigmas", None)
    if arguments:
        pytest.skip(f"arguments of set_timesteps: {sorted(arguments)}")
    n = solver["num_inference_steps"] or len(timesteps or sigmas or ())
    try:
        schedule = schedule_of(solver["name"], config, n, timesteps, sigmas=sigmas)
    except InvalidSchedule as reason:
        pytest.skip(f"refused: {reason}")
    inexact = [note for note in schedule.provenance["notes"] if note.startswith(INEXACT)]
    if inexact:
        pytest.skip(inexact[0])
    plan, alpha = compile_plan(schedule), schedule.process.alpha(schedule.times[0])
    x = tensor(case["x_start"]) * (alpha if solver["state_scaling"] == "ve" else 1.0)
    draws = given(_draws(case), plan.noisy_rows)
    end = run_plan(_denoiser(schedule.process, solver), plan, x, draws)
    expected = tensor(case["x_end"])
    assert float((end - expected).abs().max()) < _TOLERANCE * float(expected.abs().max())


def _tau(tau: dict[str, Any] | None) -> dict[str, Any]:
    """SA-Solver's amount of noise, where it is not the usual one."""
    if tau is None or tau == _USUAL_TAU:
        return {}
    if tau["type"] != "constant":
        pytest.skip(f"a function in place of the usual one: {tau}")
    return {"tau_func": tau["value"]}


def _of_the_step(step: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a step that are keys of an import."""
    known = {key: value for key, value in step.items() if key in ("eta", "s_noise")}
    if known.keys() != step.keys():
        pytest.skip(f"arguments of the step: {sorted(step.keys() - known.keys())}")
    return known


def _denoiser(process: Any, solver: dict[str, Any]) -> Any:
    found: Any = mixture(process)
    if solver["config"].get("clip_sample", "DDPM" in solver["name"]):
        bound = solver["config"].get("clip_sample_range", 1.0)
        return lambda x, t: found(x, t).clamp(-bound, bound)
    return Thresholded(found, solver["config"]) if thresholds(solver) else found


def _draws(case: dict[str, Any]) -> list[Any]:
    used = [draw for draw in case["noises"] if draw["first_seen"] is not None and draw["weight"]]
    return [tensor(draw["values"]) for draw in used]


def test_eta_of_a_call_is_an_option_or_a_key(tmp_path: Path) -> None:
    path = tmp_path / "scheduler_config.json"
    path.write_text(json.dumps({"_class_name": "DDIMScheduler", "clip_sample": False}))
    asked = import_schedule("diffusers", Request(source=str(path), steps=4, eta=0.5))
    path.write_text(json.dumps({"_class_name": "DDIMScheduler", "eta": 0.5}))
    written = import_schedule("diffusers", Request(source=str(path), steps=4))
    assert asked.id == written.id
    assert [step.noise.amount for step in asked.steps[:-1] if step.noise] == [0.5] * 3
