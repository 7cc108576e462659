"""What a pipeline runs unless told otherwise, as baselines of its study."""

import math
from pathlib import Path
from typing import Any

import pytest

from s3search.models.diffusers.scheduler_config import OwnSampler, flow_shift, process_of
from s3search.processes import NoiseProcess, edm, flow
from s3search.run.baselines import known_baselines, stock_solvers
from s3search.run.own_baselines import own_flow_solvers
from s3search.run.prepare import baseline_seeds
from s3search.schedules.published import flow_euler
from s3search.search.trial import OriginKind, Trial
from tests.support.studies import study_config

DDIM = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "timestep_spacing": "leading",
    "steps_offset": 1,
}


def _own(scheduler: str, process: NoiseProcess, nfe: int, **keys: Any) -> list[Trial]:
    """The pipeline's own among the stock solvers, which is the first of them."""
    own = OwnSampler(scheduler=scheduler, config={**DDIM, **keys})
    stock, _ = stock_solvers(own, process, nfe)
    return [trial for trial in stock if trial.origin.kind is OriginKind.PIPELINE]


def test_the_scheduler_of_the_pipeline_comes_first(tmp_path: Path) -> None:
    process = process_of(DDIM)
    own = OwnSampler(scheduler="DDIMScheduler", config=DDIM)
    seeds = baseline_seeds(study_config(tmp_path), [known_baselines(own, process, 3)])
    assert seeds[0].origin.label == "DDIMScheduler of the pipeline"
    assert seeds[0].origin.kind is OriginKind.PIPELINE
    schedule = seeds[0].schedule
    assert schedule.nfe == 3
    assert [round(t) for t in schedule.times[:3]] == [667, 334, 1]
    assert len(seeds) > 1


def test_a_scheduler_that_adds_noise_is_one_without_it_on_its_own_grid() -> None:
    process = process_of(DDIM)
    for scheduler, quiet in (
        ("DDPMScheduler", "DDIMScheduler"),
        ("EulerAncestralDiscreteScheduler", "EulerDiscreteScheduler"),
    ):
        (found,) = _own(scheduler, process, 4, timestep_spacing="trailing")
        assert found.origin.label == f"{scheduler} of the pipeline, without its noise"
        assert found.origin.is_stock
        (other,) = _own(quiet, process, 4, timestep_spacing="trailing")
        assert other.origin.label == f"{quiet} of the pipeline"
        assert found.key == other.key
        assert [round(t) for t in found.schedule.times[:4]] == [999, 749, 499, 249]


@pytest.mark.filterwarnings("ignore::FutureWarning:diffusers.*", "ignore::DeprecationWarning")
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("name", ["DDPMScheduler", "EulerAncestralDiscreteScheduler"])
def test_the_form_without_noise_calls_at_the_schedulers_own_timesteps(
    name: str, spacing: str
) -> None:
    diffusers: Any = pytest.importorskip("diffusers")
    theirs = getattr(diffusers, name)(timestep_spacing=spacing, steps_offset=1)
    config = {key: value for key, value in theirs.config.items() if not key.startswith("_")}
    theirs.set_timesteps(5)
    own = OwnSampler(scheduler=name, config=config)
    first = stock_solvers(own, process_of(config), 5)[0][0].schedule
    rounding = 0 if name == "DDPMScheduler" else 1.0  # it interpolates sigma, not its logarithm
    assert first.times[:5] == pytest.approx(theirs.timesteps.tolist(), abs=rounding)
    assert first.times[5] == -1.0


def test_a_stochastic_algorithm_type_and_score_sdes_have_forms_without_noise() -> None:
    process = process_of(DDIM)
    name = "DPMSolverMultistepScheduler"
    (found,) = _own(name, process, 4, algorithm_type="sde-dpmsolver++")
    (other,) = _own(name, process, 4, algorithm_type="dpmsolver++")
    assert (found.key, found.origin.variant) == (other.key, "without its noise")
    score = {"snr": 0.15, "sigma_min": 0.01, "sigma_max": 50.0}
    own = OwnSampler(scheduler="ScoreSdeVeScheduler", config=score)
    first = stock_solvers(own, process_of(score), 3)[0][0]
    assert first.origin.label == "ScoreSdeVeScheduler of the pipeline, without its noise"
    assert first.schedule.times == pytest.approx((50.0, math.sqrt(0.5), 0.01, 0.0))


@pytest.mark.parametrize(
    ("scheduler", "keys", "is_quiet_too"),
    [
        ("DDPMScheduler", {}, True),
        ("EulerAncestralDiscreteScheduler", {}, True),
        ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}, True),
        ("DDIMScheduler", {"eta": 0.5}, True),
        ("LCMScheduler", {}, False),
    ],
)
def test_a_stochastic_scheduler_is_measured_as_it_is_where_there_is_noise(
    scheduler: str, keys: dict[str, Any], is_quiet_too: bool
) -> None:
    config = {**DDIM, **keys}
    own, process = OwnSampler(scheduler=scheduler, config=config), process_of(DDIM)
    stock, _ = stock_solvers(own, process, 4, noise=True)
    mine = [trial for trial in stock if trial.origin.kind is OriginKind.PIPELINE]
    assert mine[0].origin.label == f"{scheduler} of the pipeline"
    assert mine[0].schedule.is_stochastic
    assert [trial.schedule.is_stochastic for trial in mine[1:]] == [False] * is_quiet_too
    assert not any(trial.schedule.is_stochastic for trial in stock[1:])
    without, _ = stock_solvers(own, process, 4)
    assert not any(trial.schedule.is_stochastic for trial in without)


def test_a_space_with_noise_begins_with_published_samplers_that_have_it() -> None:
    known = known_baselines(None, edm(), 5, noise=True)
    noisy = {t.origin.solver for t in known.published if t.schedule.is_stochastic}
    assert noisy and not any(
        t.schedule.is_stochastic for t in known_baselines(None, edm(), 5).trials
    )


def test_a_scheduler_that_has_no_such_form_or_number_is_said_to_be_missing() -> None:
    own = OwnSampler(scheduler="LCMScheduler", config=DDIM)
    stock, missing = stock_solvers(own, process_of(DDIM), 4)
    assert not any(trial.origin.kind is OriginKind.PIPELINE for trial in stock)
    assert "adds noise" in missing["LCMScheduler of the pipeline, without its noise"]
    process = process_of(DDIM)
    assert [len(_own("HeunDiscreteScheduler", process, n)) for n in (4, 5)] == [0, 1]
    assert _own("DDIMScheduler", edm(), 4) == []


def test_every_number_of_calls_of_the_pipelines_scheduler_is_found() -> None:
    (found,) = _own("PNDMScheduler", process_of(DDIM), 6, skip_prk_steps=True)
    assert found.schedule.nfe == 6  # in five steps


def test_flows_have_the_usual_solvers_at_the_models_shift() -> None:
    sampler = OwnSampler(
        scheduler="FlowMatchEulerDiscreteScheduler",
        config={"shift": 3.0, "use_dynamic_shifting": True},
        shift=2.5,
    )
    found = {trial.origin.label: trial.schedule for trial in own_flow_solvers(sampler, flow(), 5)}
    assert set(found) == {f"flow {name}, shift 2.5" for name in ("Euler", "AB-2", "Heun")}
    assert found["flow Euler, shift 2.5"] == flow_euler(flow(), nfe=5, shift=2.5)
    known = known_baselines(sampler, flow(), 5)
    usual = {trial.origin.solver: trial.origin.variant for trial in known.usual}
    assert usual["iPNDM-3"] == "flow shift 1, denoise"
    assert usual["flow AB-2"] == "shift 2.5"
    (own, *_), _ = stock_solvers(sampler, flow(), 5)
    assert own.origin.label == "FlowMatchEulerDiscreteScheduler of the pipeline"
    assert own.schedule.times[0] == 1.0  # the shift of images of the size asked for


def test_a_dynamic_shift_grows_with_the_image() -> None:
    config = {"use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15}
    assert flow_shift(config, 256) == pytest.approx(math.exp(0.5))
    assert flow_shift(config, 4096) == pytest.approx(math.exp(1.15))
    assert flow_shift({"shift": 3.0}, 4096) == 3.0
