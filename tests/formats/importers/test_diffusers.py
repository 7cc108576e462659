"""Scheduler configs of diffusers: levels and solvers are those of the library itself.

tests/test_golden.py compares whole trajectories; here are the grids of more configs, and errors.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s3search.errors import InvalidConfig, InvalidSchedule
from s3search.formats.importers import Request, import_schedule
from s3search.formats.importers.diffusers import INEXACT, schedule_of
from s3search.processes import Flow
from s3search.schedules.schedule import Schedule
from s3search.solvers.plan import compile_plan

diffusers = pytest.importorskip("diffusers")
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

_SD = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
_FLOAT32 = 2e-4  # diffusers' own rounding, in a ratio of sigma to alpha
_CONFIGS: dict[str, tuple[str, dict[str, Any], int]] = {
    "multistep leading": (
        "DPMSolverMultistepScheduler",
        {"timestep_spacing": "leading", "steps_offset": 1, "solver_order": 3},
        9,
    ),
    "multistep trailing": ("DPMSolverMultistepScheduler", {"timestep_spacing": "trailing"}, 7),
    "multistep one step": ("DPMSolverMultistepScheduler", {}, 1),
    "multistep many steps": ("DPMSolverMultistepScheduler", {"solver_order": 3}, 50),
    "multistep exponential": ("DPMSolverMultistepScheduler", {"use_exponential_sigmas": True}, 6),
    "multistep cosine": (
        "DPMSolverMultistepScheduler",
        {"beta_schedule": "squaredcos_cap_v2", "lambda_min_clipped": -5.1},
        8,
    ),
    "multistep flow": (
        "DPMSolverMultistepScheduler",
        {"use_flow_sigmas": True, "flow_shift": 5.0, "prediction_type": "flow_prediction"},
        6,
    ),
    "singlestep odd": ("DPMSolverSinglestepScheduler", {"solver_order": 3}, 7),
    "singlestep beta": ("DPMSolverSinglestepScheduler", {"use_beta_sigmas": True}, 5),
    "unipc leading": ("UniPCMultistepScheduler", {"timestep_spacing": "leading"}, 6),
    "unipc exponential": ("UniPCMultistepScheduler", {"use_exponential_sigmas": True}, 6),
    "unipc flow": (
        "UniPCMultistepScheduler",
        {"use_flow_sigmas": True, "flow_shift": 3.0, "prediction_type": "flow_prediction"},
        8,
    ),
    "euler linspace": ("EulerDiscreteScheduler", {}, 7),
    "euler leading": ("EulerDiscreteScheduler", {"timestep_spacing": "leading"}, 7),
    "euler sigma min": (
        "EulerDiscreteScheduler",
        {"final_sigmas_type": "sigma_min", "timestep_spacing": "trailing"},
        5,
    ),
    "euler exponential": ("EulerDiscreteScheduler", {"use_exponential_sigmas": True}, 6),
    "lms karras": ("LMSDiscreteScheduler", {"use_karras_sigmas": True}, 6),
    "flow euler": ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}, 6),
    "flow euler beta": ("FlowMatchEulerDiscreteScheduler", {"use_beta_sigmas": True}, 6),
    "edm euler": ("EDMEulerScheduler", {"sigma_max": 60.0}, 5),
    "edm euler one step": ("EDMEulerScheduler", {}, 1),
    "deis": ("DEISMultistepScheduler", {"solver_order": 1}, 6),
    "deis order 3": ("DEISMultistepScheduler", {"solver_order": 3}, 16),
}


def _config(name: str, changed: dict[str, Any]) -> dict[str, Any]:
    takes_betas = not name.startswith(("EDM", "Flow"))
    return {**(_SD if takes_betas else {}), **changed}


@pytest.mark.parametrize("key", _CONFIGS)
def test_levels_are_those_of_the_scheduler(key: str, tmp_path: Path) -> None:
    name, changed, n = _CONFIGS[key]
    scheduler = getattr(diffusers, name)(**_config(name, changed))
    scheduler.set_timesteps(n)
    scheduler.save_config(tmp_path)
    schedule = import_schedule("diffusers", Request(source=str(tmp_path), steps=n))
    process = schedule.process
    if isinstance(process, Flow):
        found = list(schedule.times)
    else:
        found = [process.sigma(t) / process.alpha(t) for t in schedule.times]
    assert found == pytest.approx(scheduler.sigmas.tolist(), rel=_FLOAT32, abs=1e-6)
    assert compile_plan(schedule).nfe == schedule.nfe == n
    assert schedule.provenance["imported"]["scheduler"] == name
    assert Schedule.from_dict(schedule.to_dict()).id == schedule.id


@pytest.mark.parametrize("n", [1, 2, 6])
def test_flow_heun_visits_the_schedulers_levels_twice(n: int, tmp_path: Path) -> None:
    scheduler = diffusers.FlowMatchHeunDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(n)
    scheduler.save_config(tmp_path)
    schedule = import_schedule("diffusers", Request(source=str(tmp_path), steps=n))
    visited = list(dict.fromkeys(scheduler.sigmas.tolist()))
    assert schedule.times == pytest.approx(visited, rel=_FLOAT32, abs=1e-6)
    assert schedule.nfe == len(scheduler.timesteps) == 2 * n - 1


def test_folder_of_a_pipeline_is_found(tmp_path: Path) -> None:
    diffusers.EulerDiscreteScheduler(**_SD).save_config(tmp_path / "scheduler")
    assert import_schedule("diffusers", Request(source=str(tmp_path), steps=4)).nfe == 4


def test_a_silent_config_takes_the_constructors_defaults() -> None:
    for name, changed, n in _CONFIGS.values():
        config = _config(name, changed)
        full = dict(getattr(diffusers, name)(**config).config)
        assert schedule_of(name, config, n).id == schedule_of(name, full, n).id, name


def test_user_timesteps_are_taken_as_they_are() -> None:
    schedule = schedule_of("DPMSolverMultistepScheduler", _SD, 0, [999, 600, 200])
    assert schedule.times == (999.0, 600.0, 200.0, -1.0)


def test_ddim_says_where_it_misses_its_own_timesteps() -> None:
    aligned = schedule_of("DDIMScheduler", {**_SD, "clip_sample": False}, 10)
    assert aligned.provenance["notes"] == ()
    missing = schedule_of("DDIMScheduler", {**_SD, "timestep_spacing": "trailing"}, 6)
    notes = missing.provenance["notes"]
    assert notes[0].startswith(INEXACT)
    assert notes[1].startswith("clip_sample")  # on unless the config says otherwise


@pytest.mark.parametrize(
    ("changed", "n", "nfe"),
    [
        ({"skip_prk_steps": True, "steps_offset": 1}, 7, 8),
        ({"skip_prk_steps": True, "steps_offset": 1}, 1, 1),
        ({"skip_prk_steps": True}, 2, 2),  # its last step stays where it is
        ({"steps_offset": 1}, 4, 13),
        ({"steps_offset": 1, "set_alpha_to_one": True}, 10, 19),
    ],
)
def test_pndm_visits_the_schedulers_timesteps(changed: dict[str, Any], n: int, nfe: int) -> None:
    scheduler = diffusers.PNDMScheduler(**_SD, **changed)
    scheduler.set_timesteps(n)
    schedule = schedule_of("PNDMScheduler", {**_SD, **changed}, n)
    visited = sorted(set(map(float, scheduler.timesteps)), reverse=True)
    assert list(schedule.times[: len(visited)]) == visited
    assert compile_plan(schedule).nfe == schedule.nfe == nfe
    assert not any(note.startswith(INEXACT) for note in schedule.provenance["notes"])


def test_pndm_needs_its_runge_kutta_steps_and_says_where_they_miss() -> None:
    with pytest.raises(InvalidSchedule, match="at least 4 steps"):
        schedule_of("PNDMScheduler", _SD, 3)
    with pytest.raises(InvalidSchedule, match="takes no timesteps"):
        schedule_of("PNDMScheduler", _SD, 0, [800, 400, 0])
    halves = schedule_of("PNDMScheduler", {**_SD, "steps_offset": 1}, 8)
    assert "halves of 62" in halves.provenance["notes"][0]


_REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "PNDM of v": (
        {"_class_name": "PNDMScheduler", "prediction_type": "v_prediction"},
        "only 'epsilon'",
    ),
    "DEIS": ({"_class_name": "DEISMultistepScheduler", "solver_order": 4}, "solver_order"),
    "noise of its own": ({"_class_name": "CogVideoXDPMScheduler"}, "in a way of its own"),
    "learned variance": (
        {"_class_name": "DDPMScheduler", "variance_type": "learned_range"},
        "variance_type: 'learned_range' is an answer of the network",
    ),
    "variance that is NaN": (
        {"_class_name": "DDPMScheduler", "variance_type": "fixed_large_log"},
        "gives NaN in diffusers",
    ),
    "noise upon the image": (
        {
            "_class_name": "DDPMScheduler",
            "variance_type": "fixed_large",
            "timestep_spacing": "trailing",
        },
        "adds noise to the image after the last timestep",
    ),
    "unknown variance": (
        {"_class_name": "DDPMScheduler", "variance_type": "fixed_smal"},
        "did you mean 'fixed_small'",
    ),
    "sde of third order": (
        {
            "_class_name": "DPMSolverMultistepScheduler",
            "algorithm_type": "sde-dpmsolver",
            "final_sigmas_type": "sigma_min",
            "solver_order": 3,
        },
        "orders 1 and 2",
    ),
    "sde of the noise to the clean end": (
        {"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "sde-dpmsolver"},
        "no value for algorithm_type 'sde-dpmsolver'; use 'sigma_min'",
    ),
    "sde of noise in one step": (
        {
            "_class_name": "DPMSolverSinglestepScheduler",
            "algorithm_type": "sde-dpmsolver",
            "final_sigmas_type": "sigma_min",
        },
        "has no singlestep form",
    ),
    "a function in a config": ({"_class_name": "SASolverScheduler", "tau_func": "x"}, "tau_func"),
    "order of SA-Solver": (
        {"_class_name": "SASolverScheduler", "corrector_order": 5},
        "1 to 4, found 5",
    ),
    "type of SA-Solver": (
        {"_class_name": "SASolverScheduler", "algorithm_type": "data"},
        "known: data_prediction, noise",
    ),
    "eta of TCD": ({"_class_name": "TCDScheduler", "eta": 1.5}, "eta: a share of the next time"),
    "more steps than the teacher": (
        {"_class_name": "LCMScheduler", "original_inference_steps": 2},
        "asked for 5",
    ),
    "stages of other sizes": (
        {"_class_name": "FlowMatchLCMScheduler", "scale_factors": [0.5, 1.0]},
        "scale_factors: a multi-scale sampler",
    ),
    "noise that is left out": (
        {"_class_name": "LTXEulerAncestralRFScheduler", "s_noise": 0.0},
        "set eta to 0",
    ),
    "noise to the clean end": (
        {"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "dpmsolver"},
        "sigma_min",
    ),
    "bh1 to the clean end": (
        {"_class_name": "UniPCMultistepScheduler", "solver_type": "bh1"},
        "NaN",
    ),
    "image to noise": ({"_class_name": "DDIMInverseScheduler"}, "rise from image to noise"),
    "image to noise, DPM": (
        {"_class_name": "DPMSolverMultistepInverseScheduler"},
        "rise from image to noise; schedules fall",
    ),
    "dynamic shift": (
        {"_class_name": "FlowMatchEulerDiscreteScheduler", "use_dynamic_shifting": True},
        r"exp\(mu\)",
    ),
    "unknown class": ({"_class_name": "EulerDiscretScheduler"}, "EulerDiscreteScheduler"),
    "no class": ({"solver_order": 2}, "_class_name"),
    "no list": ([], "_class_name"),  # type: ignore[dict-item]
    "unknown spacing": (
        {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leadin"},
        "timestep_spacing",
    ),
    "unknown betas": ({"_class_name": "EulerDiscreteScheduler", "beta_schedule": "x"}, "beta_s"),
    "betas that are none": (
        {"_class_name": "EulerDiscreteScheduler", "beta_start": "low"},
        "no noise process",
    ),
    "no noise left": ({"_class_name": "EDMEulerScheduler", "sigma_min": 0}, "sigma_min"),
    "order": ({"_class_name": "DPMSolverMultistepScheduler", "solver_order": 4}, "solver_order"),
}


@pytest.mark.parametrize("key", _REFUSED)
def test_what_cannot_be_run_is_refused_with_a_reason(key: str, tmp_path: Path) -> None:
    config, message = _REFUSED[key]
    path = tmp_path / "scheduler_config.json"
    path.write_text(json.dumps(config))
    with pytest.raises((InvalidConfig, InvalidSchedule), match=message):
        import_schedule("diffusers", Request(source=str(path), steps=5))


@pytest.mark.parametrize("kind", ["exponential", "linear"])
@pytest.mark.parametrize("name", ["FlowMatchEulerDiscreteScheduler", "UniPCMultistepScheduler"])
def test_mu_in_the_config_is_a_dynamic_shift(name: str, kind: str, tmp_path: Path) -> None:
    config = {"use_dynamic_shifting": True, "time_shift_type": kind}
    if name.startswith("UniPC"):
        config |= {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
    own = getattr(diffusers, name)(**config)
    own.set_timesteps(6, mu=0.7)
    path = tmp_path / "scheduler_config.json"
    path.write_text(json.dumps({**config, "_class_name": name, "mu": 0.7}))
    made = import_schedule("diffusers", Request(source=str(path), steps=6))
    assert made.times == pytest.approx(own.sigmas.tolist(), abs=1e-6)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"time_shift_type": "linear", "mu": -1.0}, "above 0"),
        (
            {"_class_name": "DPMSolverMultistepScheduler", "time_shift_type": "linear", "mu": 1.0},
            "'exponential' alone",
        ),
    ],
)
def test_a_dynamic_shift_that_diffusers_refuses_is_refused(
    extra: dict[str, object], message: str, tmp_path: Path
) -> None:
    base = {"_class_name": "FlowMatchEulerDiscreteScheduler", "use_dynamic_shifting": True}
    path = tmp_path / "scheduler_config.json"
    path.write_text(json.dumps({**base, "use_flow_sigmas": True, **extra}))
    with pytest.raises((InvalidConfig, InvalidSchedule), match=message):
        import_schedule("diffusers", Request(source=str(path), steps=5))


def test_number_of_steps_is_needed(tmp_path: Path) -> None:
    diffusers.EulerDiscreteScheduler(**_SD).save_config(tmp_path)
    with pytest.raises(InvalidConfig, match="--steps"):
        import_schedule("diffusers", Request(source=str(tmp_path)))


def test_more_steps_than_training_times_are_refused() -> None:
    with pytest.raises(InvalidSchedule, match="times"):
        schedule_of("DPMSolverMultistepScheduler", _SD, 1500)


@pytest.mark.parametrize("pipeline", ["CogView4Pipeline", "GlmImagePipeline"])
@pytest.mark.parametrize("n", [1, 2, 4, 20])
def test_a_pipeline_that_passes_both_has_its_levels_and_its_network_times(
    pipeline: str, n: int, tmp_path: Path
) -> None:
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    times = np.linspace(1000, 1.0, n).astype(np.int64).astype(np.float32)
    scheduler.set_timesteps(timesteps=times.tolist(), sigmas=(times / 1000).tolist())
    scheduler.save_config(tmp_path / "scheduler")
    index = {
        "_class_name": pipeline,
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    }
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    schedule = import_schedule("diffusers", Request(source=str(tmp_path), steps=n))
    assert schedule.times == pytest.approx(scheduler.sigmas.tolist(), abs=1e-6)
    seen = [1000 * t for t in compile_plan(schedule).network_times]
    assert seen == pytest.approx(scheduler.timesteps.tolist(), abs=1e-3)


def test_the_folder_of_a_pipeline_whose_levels_nobody_computes_is_refused(tmp_path: Path) -> None:
    diffusers.FlowMatchEulerDiscreteScheduler().save_config(tmp_path / "scheduler")
    index = {
        "_class_name": "Ideogram4Pipeline",
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    }
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(InvalidSchedule, match="Ideogram4Pipeline passes quantiles"):
        import_schedule("diffusers", Request(source=str(tmp_path), steps=4))
