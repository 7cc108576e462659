"""What exports refuse and measure: jumps, weights per pixel, guidance, missing history."""

from pathlib import Path

import numpy as np
import pytest

from s3search.errors import IncompatibleStatistics, InvalidSchedule
from s3search.formats.exporters import ExportRequest, LossReport, export_schedule
from s3search.formats.exporters.measured import inner_start_loss, interpolated_times, start_change
from s3search.processes import NoiseProcess, vp_discrete
from s3search.rules import EmsStatistics
from s3search.schedules import published
from s3search.schedules.jump import GaussianJump
from s3search.schedules.schedule import Schedule, StatisticsReference
from s3search.solvers.image_to_image import image_to_image_start
from s3search.solvers.plan import compile_plan
from tests.support.helpers import PROCESSES


def _report(form: str, schedule: Schedule, folder: Path, ems: Path | None = None) -> LossReport:
    request = ExportRequest(schedule=schedule, output=folder / "made", ems=ems)
    return export_schedule(form, request).report


def _jumping() -> Schedule:
    base = published.ddim(vp_discrete(), nfe=4)
    late = published.on_times(base.process, base.times[1:], published.ddim_steps(3))
    mean = (((0.1, 0.2), (0.3, 0.4)),)
    return published.with_jump(late, GaussianJump(from_time=base.times[0], mean=mean, rest=0.3))


def _v3(folder: Path) -> tuple[Schedule, Path]:
    lams, path = np.linspace(-5.1, 4.6, 31)[:, None, None, None], folder / "ems.safetensors"
    pixel = np.linspace(0.0, 0.3, 4).reshape(1, 2, 2)
    ems = EmsStatistics(
        lam_start=-5.1, lam_end=4.6, l=1 / (1 + np.exp(lams + pixel)), s=0 * pixel + 0 * lams,
        b=0.1 * pixel + 0 * lams,
    )  # fmt: skip
    ems.save(path)
    process = vp_discrete()
    times = [process.time_of_lam(float(ems.lams[node])) for node in (1, 10, 20, 29)]
    reference = StatisticsReference(digest=ems.digest)
    steps = published.dpm_solver_v3_steps(3, order=3)
    return published.on_times(process, times, steps, statistics=reference), path


@pytest.mark.parametrize("form", ["k-diffusion", "comfyui"])
def test_jumps_and_weights_per_pixel_have_no_place_in_sigmas(form: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidSchedule, match=r"start\.jump: .*; use --format json or diffusers"):
        _report(form, _jumping(), tmp_path)
    schedule, ems = _v3(tmp_path)
    with pytest.raises(InvalidSchedule, match=r"statistics: .* weights per pixel; use --format"):
        _report(form, schedule, tmp_path, ems)
    assert not (tmp_path / "made").exists()


def test_json_and_diffusers_take_both(tmp_path: Path) -> None:
    schedule, ems = _v3(tmp_path)
    found = _report("json", schedule, tmp_path, ems)
    assert any("weights per pixel" in item for item in found.refused)
    (tmp_path / "made").unlink()
    found = _report("diffusers", schedule, tmp_path, ems)
    assert any("weights per pixel" in item for item in found.refused)
    with pytest.raises(IncompatibleStatistics, match="none were given"):
        _report("diffusers", schedule, tmp_path)
    found = _report("diffusers", _jumping(), tmp_path)
    assert any("scale_model_input" in item for item in found.refused)


def test_a_guided_folder_says_who_follows_it(tmp_path: Path) -> None:
    schedule = published.with_guidance(published.ddim(vp_discrete(), nfe=2), [1.0, 3.0])
    found = _report("diffusers", schedule, tmp_path)
    assert any("guidance call by call" in item for item in found.exact)
    text = (tmp_path / "made" / "s3_pipeline.py").read_text()
    assert "def guided_arguments" in text
    assert "def with_schedule" not in text
    assert any(
        "guidance_scale" in item for item in _report("json", schedule, tmp_path / "made").refused
    )


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES.keys())
def test_a_solver_without_history_loses_nothing_in_the_middle(process: NoiseProcess) -> None:
    schedule = published.ddim(process, nfe=5)
    loss = inner_start_loss(schedule, image_to_image_start(schedule, schedule.times[2]))
    assert loss.change < 1e-9
    assert loss.without == pytest.approx(loss.with_them, rel=1e-9)
    assert loss.with_them > 1e-3


def test_a_multistep_solver_misses_its_history() -> None:
    schedule = published.dpmpp_2m(PROCESSES["edm"], nfe=20)
    loss = inner_start_loss(schedule, image_to_image_start(schedule, schedule.times[10]))
    assert 0.01 < loss.change < 0.1
    assert loss.change <= loss.without + loss.with_them


def test_a_right_start_changes_nothing_and_a_wrong_one_does() -> None:
    plan = compile_plan(published.ddim(PROCESSES["edm"], nfe=8))
    assert start_change(plan, 1.0) == 0.0
    assert start_change(plan, 1.01) == pytest.approx(0.01, rel=1e-6)  # zero mean: all is linear


def test_whole_training_steps_are_read_off_exactly() -> None:
    process = vp_discrete()
    assert interpolated_times(process, (0.0, 500.0, 999.0)) < 1e-9
    assert 0 < interpolated_times(process, (0.5, 500.5)) < 0.2


@pytest.mark.parametrize(
    ("form", "says"), [("json", "as step_noise"), ("diffusers", "of the pipeline's generator")]
)
def test_where_noise_of_steps_comes_from_is_said(form: str, says: str, tmp_path: Path) -> None:
    noisy = published.dpmpp_2m_sde(vp_discrete(), nfe=4)
    assert any(says in item for item in _report(form, noisy, tmp_path).exact)
    quiet = _report(form, published.ddim(vp_discrete(), nfe=4), tmp_path)
    assert not any("noise of the steps" in item for item in quiet.exact)


def test_image_to_image_of_a_solver_of_the_sde_is_measured_from_equal_noise(
    tmp_path: Path,
) -> None:
    noisy = published.dpmpp_2m_sde(vp_discrete(), nfe=4)
    losses = [
        item
        for item in _report("k-diffusion", noisy, tmp_path).approximated
        if item.what.startswith("image-to-image")
    ]
    assert losses and all("from equal noise" in item.what for item in losses)
    assert all(0 < item.measured < 100 for item in losses)
