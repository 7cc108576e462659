"""diffusers' schedulers as baselines, with a pipeline's own config."""

import json
from pathlib import Path
from typing import Any

import pytest

from s3search.models.diffusers import load
from s3search.models.diffusers.scheduler_config import OwnSampler, process_of
from s3search.processes import (
    NoiseProcess,
    VpDiscrete,
    edm,
    flow,
    vp_cosine,
    vp_discrete,
    vp_linear,
)
from s3search.run.schedulers import schedulers_of
from s3search.schedules.schedule import Schedule
from tests.support import pipelines

PNDM = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "skip_prk_steps": True,
    "steps_offset": 1,
    "timestep_spacing": "leading",
}


def _sorted(made: dict[str, Schedule | str]) -> tuple[dict[str, Schedule], dict[str, str]]:
    """Those that there are, and why there are no others."""
    found = {name: each for name, each in made.items() if isinstance(each, Schedule)}
    return found, {name: each for name, each in made.items() if isinstance(each, str)}


def test_all_that_make_so_many_calls_run_with_the_pipelines_config() -> None:
    own = OwnSampler(scheduler="PNDMScheduler", config=PNDM)
    found, missing = _sorted(schedulers_of(own, process_of(PNDM), 6))
    assert {schedule.nfe for schedule in found.values()} == {6}
    assert {"DDIMScheduler", "UniPCMultistepScheduler", "PNDMScheduler"} <= set(found)
    assert [round(t) for t in found["DDIMScheduler"].times[:2]] == [831, 665]
    assert "HeunDiscreteScheduler" in missing
    assert not set(found) & set(missing)
    assert all(missing.values())
    odd, _ = _sorted(schedulers_of(own, process_of(PNDM), 7))
    assert odd["HeunDiscreteScheduler"].n_steps == 4


def test_what_the_file_leaves_out_is_as_each_scheduler_has_it() -> None:
    config = {**PNDM, "timestep_spacing": "trailing"}
    told = OwnSampler(scheduler="DDPMScheduler", config=config)
    silent = OwnSampler(scheduler="DDPMScheduler", config=config, left_out=("timestep_spacing",))
    firsts = [
        round(_sorted(schedulers_of(own, process_of(PNDM), 5))[0]["DDIMScheduler"].times[0])
        for own in (told, silent)
    ]
    assert firsts == [999, 801]  # trailing, and DDIM's own leading with the offset


def test_edm_and_flows_have_schedulers_of_their_own() -> None:
    found, _ = _sorted(schedulers_of(None, edm(sigma_max=40.0), 5))
    assert set(found) == {"EDMDPMSolverMultistepScheduler", "EDMEulerScheduler"}
    assert {schedule.times[0] for schedule in found.values()} == {40.0}
    own = OwnSampler(
        scheduler="FlowMatchEulerDiscreteScheduler",
        config={"shift": 1.0, "use_dynamic_shifting": True},
        shift=3.0,
    )
    found, _ = _sorted(schedulers_of(own, flow(), 5))
    assert set(found) == {
        "DPMSolverMultistepScheduler",
        "FlowMatchEulerDiscreteScheduler",
        "FlowMatchHeunDiscreteScheduler",
        "UniPCMultistepScheduler",
    }
    plain, _ = _sorted(schedulers_of(None, flow(), 5))
    assert plain["UniPCMultistepScheduler"].times[2] < found["UniPCMultistepScheduler"].times[2]


@pytest.mark.parametrize(
    "process",
    [
        vp_discrete(),
        vp_discrete("scaled_linear", beta_start=0.00085, beta_end=0.012),
        vp_discrete("cosine"),
        vp_discrete([1e-4 + 1e-5 * i for i in range(500)]),
    ],
    ids=["linear", "scaled_linear", "cosine", "list"],
)
def test_a_table_without_a_pipeline_has_the_schedulers_with_its_betas(
    process: VpDiscrete,
) -> None:
    found, missing = _sorted(schedulers_of(None, process, 5))
    assert {schedule.process for schedule in found.values()} == {process}
    assert set(missing) == {"PNDMScheduler"}  # whose first steps make four calls each
    last = process.n - 1
    assert found["DPMSolverMultistepScheduler"].times[0] == last
    assert found["DDIMScheduler"].times[0] == 4 * (process.n // 5)


@pytest.mark.parametrize(("process", "table"), [(vp_linear(), "linear"), (vp_cosine(), "cosine")])
def test_a_continuous_process_has_those_of_its_table_at_equal_levels(
    process: NoiseProcess, table: str
) -> None:
    found, _ = _sorted(schedulers_of(None, process, 6))
    discrete = vp_discrete(table)
    own, _ = _sorted(schedulers_of(None, discrete, 6))
    assert len(found) >= 7
    for name, schedule in found.items():
        assert schedule.process == process
        times = zip(schedule.times[1:], own[name].times[1:], strict=True)
        for t, other in times:
            assert process.lam(t) == pytest.approx(discrete.lam(other), abs=1e-8)
        # the last index of a table is noisier than the end of the process
        highest = process.lam(process.time_range[1])
        start = max(highest, discrete.lam(own[name].times[0]))
        assert process.lam(schedule.times[0]) == pytest.approx(start, abs=1e-6)


@pytest.mark.filterwarnings("ignore::FutureWarning:diffusers.*", "ignore::DeprecationWarning")
def test_from_config_of_diffusers_visits_the_same_timesteps(tmp_path: Path) -> None:
    diffusers: Any = pytest.importorskip("diffusers")
    folder = pipelines.ddpm(tmp_path / "pipe")
    file = folder / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps({"_class_name": "DDPMScheduler", "steps_offset": 1}))
    loaded = load(str(folder))
    assert loaded.own_sampler is not None
    assert "timestep_spacing" in loaded.own_sampler.left_out
    found, _ = _sorted(schedulers_of(loaded.own_sampler, loaded.process, 5))
    theirs = diffusers.DiffusionPipeline.from_pretrained(folder).scheduler
    for name in ("DDIMScheduler", "DPMSolverMultistepScheduler", "DEISMultistepScheduler"):
        scheduler = getattr(diffusers, name).from_config(theirs.config)
        scheduler.set_timesteps(5)
        own = [round(t) for t in found[name].times[:5]]
        assert own == scheduler.timesteps.tolist(), name
