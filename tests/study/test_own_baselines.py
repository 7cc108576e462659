"""What a pipeline runs unless told otherwise, as baselines of its study."""

import math
from pathlib import Path

import pytest

from s3search.models.diffusers.scheduler_config import OwnSampler, flow_shift, process_of
from s3search.processes import edm, flow
from s3search.run.own_baselines import own_baselines
from s3search.run.prepare import baseline_seeds
from s3search.schedules.published import flow_euler
from s3search.search.trial import OriginKind
from tests.support.studies import study_config

DDIM = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "timestep_spacing": "leading",
    "steps_offset": 1,
}


def test_the_scheduler_of_the_pipeline_comes_first(tmp_path: Path) -> None:
    process = process_of(DDIM)
    own = OwnSampler(scheduler="DDIMScheduler", config=DDIM)
    seeds = baseline_seeds(study_config(tmp_path), process, own)
    assert seeds[0].origin.label == "DDIMScheduler of the pipeline"
    assert seeds[0].origin.kind is OriginKind.PIPELINE
    schedule = seeds[0].schedule
    assert schedule.nfe == 3
    assert [round(t) for t in schedule.times[:3]] == [667, 334, 1]
    assert len(seeds) > 1


def test_a_scheduler_that_adds_noise_or_fits_no_such_number_is_left_out() -> None:
    random = OwnSampler(scheduler="DDPMScheduler", config=DDIM)
    assert own_baselines(random, process_of(DDIM), 4) == []
    heun = OwnSampler(scheduler="HeunDiscreteScheduler", config=DDIM)
    assert [own_baselines(heun, process_of(DDIM), n) != [] for n in (4, 5)] == [False, True]
    other = OwnSampler(scheduler="DDIMScheduler", config=DDIM)
    assert own_baselines(other, edm(), 4) == []


def test_flows_have_the_usual_solvers_at_the_models_shift() -> None:
    sampler = OwnSampler(
        scheduler="FlowMatchEulerDiscreteScheduler",
        config={"shift": 3.0, "use_dynamic_shifting": True},
        shift=2.5,
    )
    found = {trial.origin.label: trial.schedule for trial in own_baselines(sampler, flow(), 5)}
    assert set(found) == {f"flow {name}, shift 2.5" for name in ("Euler", "AB-2", "Heun")}
    assert found["flow Euler, shift 2.5"] == flow_euler(flow(), nfe=5, shift=2.5)


def test_a_dynamic_shift_grows_with_the_image() -> None:
    config = {"use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15}
    assert flow_shift(config, 256) == pytest.approx(math.exp(0.5))
    assert flow_shift(config, 4096) == pytest.approx(math.exp(1.15))
    assert flow_shift({"shift": 3.0}, 4096) == 3.0
