"""Files for k-diffusion make the images of our loop, and say when one of its samplers does."""

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from s3search.errors import InvalidSchedule
from s3search.formats.exporters.plain import plain_sampler
from s3search.formats.exporters.sigma_table import sigma_tables
from s3search.processes import Flow, NoiseProcess, edm, vp_linear
from s3search.rules import Free, NoiseKind, StepNoise
from s3search.schedules import published
from s3search.schedules.published.k_diffusion import NOISY_K_SAMPLERS
from s3search.schedules.schedule import CorrectorKind, ModelPatch, Schedule, Start, Step
from s3search.schedules.spacing import End, EndRule
from s3search.solvers.coefficients import as_coefficients
from s3search.solvers.image_to_image import image_to_image_start
from s3search.solvers.plan import compile_plan
from s3search.solvers.sample import run_plan, sample
from tests.formats.exporters.files import SigmaDenoiser, exported
from tests.support.helpers import PROCESSES, gaussian, max_abs, noise
from tests.support.listed import dpmpp_2m

_EACH = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES.keys())


def _multistep(process: NoiseProcess) -> Schedule:
    return published.unipc(process, nfe=5, order=3)


def _implicit(process: NoiseProcess) -> Schedule:
    base = _multistep(process)
    kind = {"kind": CorrectorKind.IMPLICIT}
    steps = [
        step
        if step.corrector is None
        else step.model_copy(update={"corrector": step.corrector.model_copy(update=kind)})
        for step in base.steps[:-1]
    ]
    return base.model_copy(update={"steps": (*steps, base.steps[-1])})


def _free(process: NoiseProcess) -> Schedule:
    base = published.dpmpp_2m(process, nfe=4)
    free = Step(predictor=Free(p=((-2, 0.1), (-1, 0.2)), q=(0.3, 0.4), carries=False))
    return base.model_copy(update={"steps": (*base.steps[:3], free)})


def _analytic(process: NoiseProcess) -> Schedule:
    image = (((0.1, 0.2), (0.3, -0.4)),)
    return _multistep(process).model_copy(update={"start": Start(kind="average_x0", image=image)})


def _scaled(process: NoiseProcess) -> Schedule:
    """Begun with another scale of noise than the first level's, as `leading` spacing does."""
    return published.dpmpp_2m(process, nfe=4).model_copy(update={"start": Start(noise_scale=2.5)})


_SCHEDULES = {
    "scaled": _scaled,
    "multistep": _multistep,
    "implicit": _implicit,
    "free": _free,
    "analytic": _analytic,
}


@_EACH
@pytest.mark.parametrize("name", _SCHEDULES)
def test_the_file_makes_the_images_of_our_loop(
    process: NoiseProcess, name: str, tmp_path: Path
) -> None:
    schedule = _SCHEDULES[name](process)
    names, _ = exported("k-diffusion", schedule, tmp_path)
    model, seen = SigmaDenoiser(process), []
    found = names["sample_s3"](model, noise() * names["sigmas"][0], callback=seen.append)
    expected = sample(gaussian(process), compile_plan(schedule), noise())
    assert max_abs(found - expected) < 1e-9
    assert len(model.sigmas) == len(seen) == schedule.nfe
    assert [float(now["sigma"]) for now in seen] == model.sigmas
    assert max(now["i"] for now in seen) <= len(names["sigmas"]) - 2


@_EACH
def test_image_to_image_begins_at_any_later_sigma(process: NoiseProcess, tmp_path: Path) -> None:
    schedule = _multistep(process)
    names, report = exported("k-diffusion", schedule, tmp_path)
    images = torch.full((4, 1, 2, 2), 0.3, dtype=torch.float64)
    for k in range(1, len(schedule.times) - 1):
        t, s = schedule.times[k], names["sigmas"][k]
        signal = 1 - s if isinstance(process, Flow) else 1.0
        x = signal * images + s * noise()
        found = names["sample_s3"](SigmaDenoiser(process), x, names["sigmas"][k:])
        own = process.alpha(t) * images + process.sigma(t) * noise()
        plan = compile_plan(image_to_image_start(schedule, t).schedule)
        assert max_abs(found - run_plan(gaussian(process), plan, own)) < 1e-9
    said = [item for item in report.approximated if item.what.startswith("image-to-image")]
    starts = [image_to_image_start(schedule, t) for t in schedule.times[1:-1]]
    assert len(said) == sum(bool(start.lowered) for start in starts) > 0
    assert all(0 < item.measured < 100 for item in said)


@_EACH
def test_a_run_may_end_at_any_sigma_and_another_go_on(
    process: NoiseProcess, tmp_path: Path
) -> None:
    names, _ = exported("k-diffusion", _multistep(process), tmp_path)
    sigmas, model = names["sigmas"], SigmaDenoiser(process)
    for k in range(1, len(sigmas) - 1):
        part: list[Any] = []
        start = noise() * sigmas[0]
        first = names["sample_s3"](model, start, sigmas[: k + 1], callback=part.append)
        assert [float(now["sigma"]) for now in part] == pytest.approx(sigmas[:k], rel=1e-6)
        whole: list[Any] = []
        names["sample_s3"](model, start, callback=whole.append)
        assert max_abs(first - whole[k]["x"]) == 0.0  # where the whole run calls next
        rest = names["sample_s3"](model, first, sigmas[k:])
        inner = names["sample_s3"](model, first, sigmas[k : k + 2])
        assert torch.isfinite(rest).all()
        assert inner.shape == rest.shape


def _noisy(process: NoiseProcess) -> Schedule:
    """Two kinds of noise and a history; the step to the clean end draws none."""
    base = published.dpmpp_2m(process, nfe=5, end=End(rule=EndRule.DENOISE))
    eta = StepNoise(amount=0.7, scale=1.01)
    noises = (eta, StepNoise(kind=NoiseKind.GAMMA, amount=0.3), None, eta, None)
    steps = zip(base.steps, noises, strict=True)
    return base.changed(steps=[step.model_copy(update={"noise": own}) for step, own in steps])


class _Sampler:
    """A noise sampler in the convention of k-diffusion, which remembers what it was asked."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(5)
        self.asked: list[tuple[float, float]] = []
        self.drawn: list[torch.Tensor] = []

    def __call__(self, sigma: torch.Tensor, sigma_next: torch.Tensor) -> torch.Tensor:
        self.asked.append((float(sigma), float(sigma_next)))
        self.drawn.append(torch.randn(noise().shape, generator=self.generator).double())
        return self.drawn[-1]


@_EACH
@pytest.mark.parametrize("is_free", [False, True], ids=["rules", "free steps"])
def test_noise_is_the_noise_samplers_once_for_each_noisy_row(
    process: NoiseProcess, is_free: bool, tmp_path: Path
) -> None:
    schedule, sampler = _noisy(process), _Sampler()
    if is_free:
        schedule = as_coefficients(schedule)
    names, report = exported("k-diffusion", schedule, tmp_path)
    start = noise() * names["sigmas"][0]
    found = names["sample_s3"](SigmaDenoiser(process), start, noise_sampler=sampler)
    plan = compile_plan(schedule)
    expected = sample(gaussian(process), plan, noise(), step_noise=sampler.drawn)
    assert max_abs(found - expected) < 1e-9
    sigmas = names["sigmas"]
    asked = [(sigmas[k], sigmas[k + 1]) for k in (0, 1, 3)]
    assert sampler.asked == [pytest.approx(own) for own in asked]
    assert any("noise sampler" in item for item in report.exact)
    assert any("from equal noise" in item.what for item in report.approximated)


@_EACH
def test_image_to_image_keeps_the_noise_of_what_is_left(
    process: NoiseProcess, tmp_path: Path
) -> None:
    schedule, sampler = _noisy(process), _Sampler()
    names, _ = exported("k-diffusion", schedule, tmp_path)
    t, s = schedule.times[3], names["sigmas"][3]
    model = SigmaDenoiser(process)
    found = names["sample_s3"](model, s * noise(), names["sigmas"][3:], noise_sampler=sampler)
    plan = compile_plan(image_to_image_start(schedule, t).schedule)
    expected = sample(gaussian(process), plan, noise(), step_noise=sampler.drawn)
    assert max_abs(found - expected) < 1e-9


def test_without_a_noise_sampler_noise_is_torchs_own_or_of_the_seed(tmp_path: Path) -> None:
    names, _ = exported("k-diffusion", _noisy(edm()), tmp_path)
    plan, start = compile_plan(_noisy(edm())), noise() * names["sigmas"][0]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(8)
        found = names["sample_s3"](SigmaDenoiser(edm()), start)
    generator = torch.Generator().manual_seed(8)
    expected = sample(gaussian(edm()), plan, noise(), step_noise=generator)
    assert max_abs(found - expected) < 1e-9
    seeded = names["sample_s3"](SigmaDenoiser(edm()), start, extra_args={"seed": 7})
    assert max_abs(seeded - found) == 0.0  # on the CPU ComfyUI takes the seed after it


def test_a_restart_is_run_whole_by_the_part_that_reaches_its_lower_level(tmp_path: Path) -> None:
    ddim = published.ddim_steps(1)[0]
    restart = StepNoise(kind=NoiseKind.TIME, amount=1.0)
    schedule = Schedule(
        process=edm(),
        times=(80.0, 1.0, 8.0, 1.0, 0.0),
        steps=(ddim, Step(predictor=ddim.predictor, noise=restart), ddim, ddim),
    )
    names, _ = exported("k-diffusion", schedule, tmp_path)
    assert names["sigmas"] == [80.0, 8.0, 1.0, 0.0]
    model, sampler = SigmaDenoiser(edm()), _Sampler()
    whole = names["sample_s3"](model, 80.0 * noise(), noise_sampler=sampler)
    assert model.sigmas == [80.0, 1.0, 8.0, 1.0]
    expected = sample(gaussian(edm()), compile_plan(schedule), noise(), step_noise=sampler.drawn)
    assert max_abs(whole - expected) < 1e-9
    again = _Sampler()
    first = names["sample_s3"](model, 80.0 * noise(), names["sigmas"][:3], noise_sampler=again)
    rest = names["sample_s3"](model, first, names["sigmas"][2:], noise_sampler=again)
    assert model.sigmas[4:] == [80.0, 1.0, 8.0, 1.0]
    assert max_abs(rest - whole) < 1e-12


def test_noise_of_a_start_is_drawn_with_the_first_state(tmp_path: Path) -> None:
    churn = Start(noise=StepNoise(kind=NoiseKind.GAMMA, amount=0.2))
    base = _multistep(edm())
    names, report = exported("k-diffusion", base.changed(start=churn), tmp_path)
    found = names["sample_s3"](SigmaDenoiser(edm()), noise() * names["sigmas"][0])
    expected = sample(gaussian(edm()), compile_plan(base), noise())
    assert max_abs(found - expected) < 1e-9
    assert any("that of the start with the first state" in item for item in report.exact)


def test_other_sigmas_are_refused(tmp_path: Path) -> None:
    names, _ = exported("k-diffusion", _multistep(edm()), tmp_path)
    for sigmas in (
        names["sigmas"][:1],
        names["sigmas"][::2],
        [*names["sigmas"][:2], 0.5, 0.0],
        [1.0, 0.0],
    ):
        with pytest.raises(ValueError, match=r"sigmas: .* were asked, this file's table is for"):
            names["sample_s3"](SigmaDenoiser(edm()), noise(), sigmas)


def test_the_network_is_told_what_the_schedule_says(tmp_path: Path) -> None:
    process = vp_linear()
    base = published.ddim(process, nfe=4)
    schedule = published.with_network_times(base, [None, *(0.97 * t for t in base.times[1:-1])])
    names, report = exported("k-diffusion", schedule, tmp_path)
    model = SigmaDenoiser(process)
    found = names["sample_s3"](model, noise() * names["sigmas"][0])
    expected = sample(gaussian(process), compile_plan(schedule), noise())
    assert max_abs(found - expected) < 1e-9
    told = [math.exp(-process.lam(t)) for t in compile_plan(schedule).network_times]
    assert model.sigmas == pytest.approx(told)
    assert any("network_time" in item for item in report.refused)


def test_guidance_is_passed_call_by_call(tmp_path: Path) -> None:
    scales = [1.0, 4.0, 2.5, 1.0]
    schedule = published.with_guidance(published.ddim(vp_linear(), nfe=4), scales)
    names, report = exported("k-diffusion", schedule, tmp_path)
    model = SigmaDenoiser(vp_linear())
    extra = {"cond_scale": 7.0, "cond": 1}
    names["sample_s3"](model, noise() * names["sigmas"][0], extra_args=extra)
    assert [given["cond_scale"] for given in model.extra] == scales
    assert extra == {"cond_scale": 7.0, "cond": 1}
    names["sample_s3"](model, noise(), names["sigmas"][2:], extra_args=extra)
    assert [given["cond_scale"] for given in model.extra[4:]] == scales[2:]
    assert any("cond_scale" in item for item in report.exact)
    with pytest.raises(ValueError, match="found no cond_scale"):
        names["sample_s3"](model, noise())


# ---- schedules that are a sampler of k-diffusion


def _to_d(x: Any, sigma: Any, denoised: Any) -> Any:
    return (x - denoised) / sigma


def _euler(model: Any, x: Any, sigmas: Any) -> Any:
    for s, t in pairwise(sigmas):
        x = x + (t - s) * _to_d(x, s, model(x, s.expand(len(x))))
    return x


def _heun(model: Any, x: Any, sigmas: Any) -> Any:
    for s, t in pairwise(sigmas):
        d = _to_d(x, s, model(x, s.expand(len(x))))
        end = x + (t - s) * d
        if t > 0:
            d = (d + _to_d(end, t, model(end, t.expand(len(x))))) / 2
        x = x + (t - s) * d
    return x


_WRITTEN = {"euler": _euler, "heun": _heun, "dpmpp_2m": dpmpp_2m}
"""The samplers by their published formulas (arXiv:2206.00364 alg. 1; arXiv:2211.01095 alg. 2)."""


def _plain(name: str, process: NoiseProcess) -> Schedule:
    if isinstance(process, Flow):
        return {"euler": published.flow_euler, "heun": published.flow_heun}[name](process, nfe=5)
    base = published.euler(process, nfe=5)  # its times reach the clean end
    times = (*base.times[:-1], process.clean_time)
    n = len(times) - 1
    steps = {
        "euler": published.ddim_steps(n),
        "heun": published.heun_steps(n, ends_clean=True),
        "dpmpp_2m": published.dpm_multistep_steps(n, order=2, lower_order_final=False),
    }[name]
    return published.on_times(process, times, steps)


@_EACH
@pytest.mark.parametrize("name", _WRITTEN)
def test_known_samplers_are_named_and_make_our_images(
    process: NoiseProcess, name: str, tmp_path: Path
) -> None:
    if isinstance(process, Flow) and name == "dpmpp_2m":
        process, schedule = edm(), _plain(name, edm())
    else:
        schedule = _plain(name, process)
    names, report = exported("k-diffusion", schedule, tmp_path)
    assert names["sampler"] == f"sample_{name}"
    assert any(f"sample_{name}" in item for item in report.exact)
    sigmas = torch.tensor(names["sigmas"], dtype=torch.float64)
    found = _WRITTEN[name](SigmaDenoiser(process), noise() * sigmas[0], sigmas)
    expected = sample(gaussian(process), compile_plan(schedule), noise())
    assert max_abs(found - expected) < 1e-9


def _euler_ancestral(model: Any, x: Any, sigmas: Any, draw: Any) -> Any:
    """k-diffusion's get_ancestral_step with eta 1, and Euler to below."""
    for s, t in pairwise(sigmas):
        up = (t**2 * (s**2 - t**2) / s**2).sqrt()
        down = (t**2 - up**2).sqrt()
        x = x + (down - s) * _to_d(x, s, model(x, s.expand(len(x))))
        x = x + up * draw(s, t) if t > 0 else x
    return x


def _dpmpp_2m_sde(model: Any, x: Any, sigmas: Any, draw: Any) -> Any:
    """SDE-DPM-Solver++(2M), midpoint (arXiv:2211.01095)."""
    old, h_last = None, None
    for s, t in pairwise(sigmas):
        new = model(x, s.expand(len(x)))
        if t == 0:
            return new
        h = (s / t).log()
        part = -torch.expm1(-2 * h)
        x = t / s * (-h).exp() * x + part * new
        if old is not None:
            x = x + 0.5 * part * h / h_last * (new - old)
        x = x + t * part.sqrt() * draw(s, t)
        old, h_last = new, h
    return x


@pytest.mark.parametrize("process", [edm(), vp_linear()], ids=["edm", "vp_linear"])
@pytest.mark.parametrize("name", ["euler_ancestral", "dpmpp_2m_sde"])
def test_samplers_with_noise_are_named_and_make_our_images(
    process: NoiseProcess, name: str, tmp_path: Path
) -> None:
    schedule = getattr(published, name)(process, nfe=5)
    names, _ = exported("k-diffusion", schedule, tmp_path)
    assert names["sampler"] == f"sample_{name}"
    sigmas, sampler = torch.tensor(names["sigmas"], dtype=torch.float64), _Sampler()
    run = {"euler_ancestral": _euler_ancestral, "dpmpp_2m_sde": _dpmpp_2m_sde}[name]
    found = run(SigmaDenoiser(process), noise() * sigmas[0], sigmas, sampler)
    expected = sample(gaussian(process), compile_plan(schedule), noise(), step_noise=sampler.drawn)
    assert max_abs(found - expected) < 1e-9
    other = getattr(published, name)(process, nfe=5, eta=0.9)
    assert plain_sampler(other, sigma_tables(other, "k-diffusion")[0]) is None


@pytest.mark.parametrize("name", NOISY_K_SAMPLERS)
def test_every_sampler_with_noise_is_recognised(name: str) -> None:
    sigmas = (80.0, 20.0, 5.0, 1.0, 0.2, 0.0)
    schedule = NOISY_K_SAMPLERS[name].make(edm(), sigmas)
    found = plain_sampler(schedule, sigma_tables(schedule, "k-diffusion")[0])
    assert found is not None
    assert (found.name, found.sigmas) == (name, pytest.approx(sigmas))


def test_lms_and_dpm_2_are_recognised(tmp_path: Path) -> None:
    times = (80.0, 20.0, 5.0, 1.0, 0.2, 0.0)
    lms = Schedule(process=edm(), times=times, steps=published.rho_ab_steps(5, 4))
    names, _ = exported("k-diffusion", lms, tmp_path)
    assert (names["sampler"], names["sigmas"]) == ("sample_lms", [*times])
    names, _ = exported("k-diffusion", published.dpm2(vp_linear(), nfe=5), tmp_path)
    assert names["sampler"] == "sample_dpm_2"
    assert len(names["sigmas"]) == 4


def test_a_changed_number_is_no_known_sampler() -> None:
    schedule = _plain("euler", edm())
    free = Step(predictor=Free(p=((-1, 0.0),), q=(1.0 + 1e-6,), carries=False))
    changed = schedule.model_copy(update={"steps": (*schedule.steps[:-1], free)})
    assert plain_sampler(schedule, sigma_tables(schedule, "k-diffusion")[0])
    assert plain_sampler(changed, sigma_tables(changed, "k-diffusion")[0]) is None


@pytest.mark.parametrize("form", ["k-diffusion", "comfyui"])
def test_changed_networks_are_refused(form: str, tmp_path: Path) -> None:
    plain = published.ddim(edm(), nfe=3)
    for patch, said in (
        (ModelPatch(skip_scale=(0.9,)), r"model_patch\.skip_scale"),
        (ModelPatch(skip_layers=((0,), (), (1,))), r"model_patch\.skip_layers"),
    ):
        schedule = plain.model_copy(update={"model_patch": patch})
        with pytest.raises(InvalidSchedule, match=f"{said}: .* use --format json"):
            exported(form, schedule, tmp_path)
