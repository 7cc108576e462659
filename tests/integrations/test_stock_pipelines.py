"""Stock pipelines of diffusers, and the schedules imported from them, from one noise to the end.

The networks are tiny and random.  An import that is not what the pipeline runs says so in a note.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip(
    "diffusers", reason="diffusers is not installed: pip install diffusers transformers"
)
pytest.importorskip(
    "transformers", reason="transformers is not installed: pip install diffusers transformers"
)

import diffusers

from s3search.errors import InvalidSchedule
from s3search.formats.importers.diffusers import INEXACT
from s3search.models.diffusers import load
from s3search.models.diffusers.scheduler_classes import CLASSES, Fate
from s3search.run.schedulers import own_scheduler
from s3search.schedules.schedule import Start
from tests.support import pipelines, stock

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning:diffusers.*"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

_SD = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
_LEADING = {**_SD, "timestep_spacing": "leading", "steps_offset": 1}
_TRAILING = {**_SD, "timestep_spacing": "trailing"}
_LINSPACE = {**_SD, "timestep_spacing": "linspace"}
_NO_CLIP = {"clip_sample": False}

ON_BETAS: dict[str, tuple[str, dict[str, Any]]] = {
    "ddim leading": ("DDIMScheduler", {**_LEADING, **_NO_CLIP}),
    "ddim trailing": ("DDIMScheduler", {**_TRAILING, **_NO_CLIP}),
    "ddim parallel": ("DDIMParallelScheduler", {**_LEADING, **_NO_CLIP}),
    "cogvideox": (
        "CogVideoXDDIMScheduler",
        {**_TRAILING, **_NO_CLIP, "prediction_type": "v_prediction"},
    ),
    "dpm leading": ("DPMSolverMultistepScheduler", _LEADING),
    "dpm": ("DPMSolverMultistepScheduler", {**_LINSPACE, "solver_order": 3}),
    "dpm singlestep": ("DPMSolverSinglestepScheduler", _SD),
    "unipc leading": ("UniPCMultistepScheduler", _LEADING),
    "unipc trailing": ("UniPCMultistepScheduler", {**_TRAILING, "solver_order": 3}),
    "deis leading": ("DEISMultistepScheduler", _LEADING),
    "pndm": ("PNDMScheduler", {**_SD, "skip_prk_steps": True, "steps_offset": 1}),
    "euler leading": ("EulerDiscreteScheduler", _LEADING),
    "euler": ("EulerDiscreteScheduler", _LINSPACE),
    "euler karras": ("EulerDiscreteScheduler", {**_SD, "use_karras_sigmas": True}),
    "heun leading": ("HeunDiscreteScheduler", _LEADING),
    "heun": ("HeunDiscreteScheduler", _LINSPACE),
    "kdpm2 leading": ("KDPM2DiscreteScheduler", _LEADING),
    "kdpm2": ("KDPM2DiscreteScheduler", _TRAILING),
    "lms leading": ("LMSDiscreteScheduler", _LEADING),
    "lms": ("LMSDiscreteScheduler", _LINSPACE),
    "ddpm leading": ("DDPMScheduler", {**_LEADING, **_NO_CLIP}),
    "ddpm large": ("DDPMScheduler", {**_SD, **_NO_CLIP, "variance_type": "fixed_large"}),
    "ddpm parallel": ("DDPMParallelScheduler", {**_TRAILING, **_NO_CLIP}),
    "sde dpm": ("DPMSolverMultistepScheduler", {**_LEADING, "algorithm_type": "sde-dpmsolver++"}),
    "sde dpm heun": (
        "DPMSolverMultistepScheduler",
        {**_TRAILING, "algorithm_type": "sde-dpmsolver++", "solver_type": "heun"},
    ),
    "sde of noise": (
        "DPMSolverMultistepScheduler",
        {**_LEADING, "algorithm_type": "sde-dpmsolver", "final_sigmas_type": "sigma_min"},
    ),
    "sde singlestep": (
        "DPMSolverSinglestepScheduler",
        {**_SD, "algorithm_type": "sde-dpmsolver++", "lower_order_final": True},
    ),
    "euler ancestral": ("EulerAncestralDiscreteScheduler", _LINSPACE),
    "euler ancestral leading": ("EulerAncestralDiscreteScheduler", _LEADING),
    "kdpm2 ancestral": ("KDPM2AncestralDiscreteScheduler", _TRAILING),
    "lcm": ("LCMScheduler", _SD),
    "edm sde": ("EDMDPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "edm euler": ("EDMEulerScheduler", {}),
    "edm euler v": ("EDMEulerScheduler", {"prediction_type": "v_prediction"}),
    "edm dpm": ("EDMDPMSolverMultistepScheduler", {}),
    "edm dpm exponential": (
        "EDMDPMSolverMultistepScheduler",
        {"sigma_schedule": "exponential", "solver_order": 3},
    ),
}
ON_FLOWS: dict[str, tuple[str, dict[str, Any]]] = {
    "schnell": ("FlowMatchEulerDiscreteScheduler", {"shift": 1.0}),
    "shifted": ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}),
    "karras": ("FlowMatchEulerDiscreteScheduler", {"shift": 1.0, "use_karras_sigmas": True}),
    "stochastic": ("FlowMatchEulerDiscreteScheduler", {"stochastic_sampling": True}),
    "lcm": ("FlowMatchLCMScheduler", {"shift": 3.0}),
}
_TOLERANCE = 1e-4  # of the largest latent; float32 tables of sigma give 5e-5 in the worst case
_NEAR = 0.1  # where a note says that the network is told other times


@pytest.fixture(scope="module")
def sd(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = pipelines.stable_diffusion(tmp_path_factory.mktemp("sd") / "pipe")
    return diffusers.StableDiffusionPipeline.from_pretrained(folder)


@pytest.fixture(scope="module")
def sd3(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = pipelines.stable_diffusion_3(tmp_path_factory.mktemp("sd3") / "pipe")
    return diffusers.StableDiffusion3Pipeline.from_pretrained(folder)


@pytest.fixture(scope="module")
def flux(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = pipelines.flux(tmp_path_factory.mktemp("flux") / "pipe", guided=False)
    return diffusers.FluxPipeline.from_pretrained(folder)


def _noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(4))


_IMAGE = {"prompt": "a b", "height": 16, "width": 16}
_FLUX = {**_IMAGE, "guidance_scale": 0.0}


def _scheduler(name: str, config: dict[str, Any]) -> Any:
    return getattr(diffusers, name)(**config)


@pytest.mark.parametrize("case", ON_BETAS)
def test_stable_diffusion_makes_the_latents_of_its_import(
    sd: Any, case: str, tmp_path: Path
) -> None:
    name, config = ON_BETAS[case]
    folder = stock.with_scheduler(sd, _scheduler(name, config), tmp_path)
    for n in (1, 2, 4, 20):
        schedule = stock.imported(folder, n)
        notes = stock.notes_of(schedule)
        assert not any(note.startswith((INEXACT, "network")) for note in notes), notes
        theirs, ours = stock.both_runs(sd, schedule, n, _noise(1, 4, 8, 8), **_IMAGE)
        assert stock.apart(theirs, ours) < _TOLERANCE, n


def test_a_start_from_unit_noise_is_the_schedules_own(sd: Any, tmp_path: Path) -> None:
    scheduler = _scheduler("EulerDiscreteScheduler", _LEADING)
    folder = stock.with_scheduler(sd, scheduler, tmp_path)
    schedule = stock.imported(folder, 1)
    scheduler.set_timesteps(1)
    assert schedule.start.noise_scale == 1.0
    assert "noise times 1, not its level's sigma" in schedule.describe()
    plain = schedule.changed(start=Start())
    sd.scheduler = scheduler
    theirs, without = stock.both_runs(sd, plain, 1, _noise(1, 4, 8, 8), **_IMAGE)
    assert stock.apart(theirs, without) > 0.1  # the scale is not nothing


@pytest.mark.parametrize("case", ON_FLOWS)
@pytest.mark.parametrize("kind", ["sd3", "flux"])
def test_flow_pipelines_make_the_latents_of_their_imports(
    kind: str, case: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    name, config = ON_FLOWS[case]
    pipe = request.getfixturevalue(kind)
    noise, arguments = (
        (_noise(1, 16, 16), _FLUX) if kind == "flux" else (_noise(1, 4, 8, 8), _IMAGE)
    )
    folder = stock.with_scheduler(pipe, _scheduler(name, config), tmp_path)
    for n in (1, 2, 4, 20):
        schedule = stock.imported(folder, n)
        theirs, ours = stock.both_runs(pipe, schedule, n, noise, **arguments)
        assert stock.apart(theirs, ours) < 1e-5, n
        assert not stock.notes_of(schedule)


@pytest.mark.parametrize("eta", [0.3, 1.0])
@pytest.mark.parametrize("name", ["DDIMScheduler", "TCDScheduler"])
def test_an_eta_that_the_pipeline_passes_is_a_key_of_the_import(
    sd: Any, name: str, eta: float, tmp_path: Path
) -> None:
    folder = stock.with_scheduler(sd, _scheduler(name, {**_LEADING, **_NO_CLIP}), tmp_path)
    file = folder / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "eta": eta}))
    for n in (1, 2, 4, 20):
        schedule = stock.imported(folder, n)
        theirs, ours = stock.both_runs(sd, schedule, n, _noise(1, 4, 8, 8), eta=eta, **_IMAGE)
        assert stock.apart(theirs, ours) < _TOLERANCE, n
        assert schedule.is_stochastic == (n > 1)


def test_ltxs_ancestral_steps_are_its_own_with_the_shift_of_another_class(
    sd3: Any, tmp_path: Path
) -> None:
    scheduler = diffusers.LTXEulerAncestralRFScheduler.from_config(
        {"shift": 3.0, "eta": 0.6, "s_noise": 1.1, "num_train_timesteps": 1000}
    )
    folder = stock.with_scheduler(sd3, scheduler, tmp_path)
    for n in (1, 2, 4, 20):
        schedule = stock.imported(folder, n)
        theirs, ours = stock.both_runs(sd3, schedule, n, _noise(1, 4, 8, 8), **_IMAGE)
        assert stock.apart(theirs, ours) < 1e-5, n


def test_flow_heun_makes_the_latents_of_its_import(sd3: Any, tmp_path: Path) -> None:
    folder = stock.with_scheduler(sd3, _scheduler("FlowMatchHeunDiscreteScheduler", {}), tmp_path)
    for n in (1, 2, 4, 20):
        schedule = stock.imported(folder, n)
        theirs, ours = stock.both_runs(sd3, schedule, n, _noise(1, 4, 8, 8), **_IMAGE)
        assert stock.apart(theirs, ours) < _TOLERANCE, n


_UNIPC_FLOW = {
    "use_flow_sigmas": True,
    "prediction_type": "flow_prediction",
    "flow_shift": 3.0,
}


@pytest.mark.parametrize(
    ("kind", "name", "config"),
    [
        ("sd", "UniPCMultistepScheduler", {**_SD, "use_karras_sigmas": True}),
        ("sd", "UniPCMultistepScheduler", {**_SD, "use_beta_sigmas": True}),
        ("sd", "DPMSolverMultistepScheduler", {**_SD, "use_exponential_sigmas": True}),
        ("sd3", "UniPCMultistepScheduler", _UNIPC_FLOW),
        ("sd3", "DPMSolverMultistepScheduler", _UNIPC_FLOW),
        ("flux", "UniPCMultistepScheduler", _UNIPC_FLOW),
    ],
)
def test_a_network_that_is_told_whole_times_is_said_with_how_far_they_are(
    kind: str, name: str, config: dict[str, Any], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    pipe = request.getfixturevalue(kind)
    noise, arguments = (
        (_noise(1, 16, 16), _FLUX) if kind == "flux" else (_noise(1, 4, 8, 8), _IMAGE)
    )
    scheduler = _scheduler(name, config)
    folder = stock.with_scheduler(pipe, scheduler, tmp_path)
    schedule = stock.imported(folder, 4)
    theirs, ours = stock.both_runs(pipe, schedule, 4, noise, **arguments)
    assert _TOLERANCE < stock.apart(theirs, ours) < _NEAR
    whole = scheduler.timesteps.tolist()
    thousand = 1000 if "use_flow_sigmas" in config else 1
    off = max(abs(a - thousand * b) for a, b in zip(whole, schedule.times, strict=False))
    assert schedule.provenance["imported"]["network_times_off"] == pytest.approx(off, abs=0.02)
    assert stock.notes_of(schedule)[-1].startswith("network: the scheduler tells it whole")


def test_ddim_that_misses_its_own_timesteps_is_said(sd: Any, tmp_path: Path) -> None:
    scheduler = _scheduler("DDIMScheduler", {**_LINSPACE, **_NO_CLIP})
    folder = stock.with_scheduler(sd, scheduler, tmp_path)
    assert stock.notes_of(stock.imported(folder, 4))[0].startswith(INEXACT)


def test_a_pipeline_whose_scheduler_cannot_take_its_sigmas_is_refused(
    flux: Any, tmp_path: Path
) -> None:
    for name, config in (("FlowMatchHeunDiscreteScheduler", {}),):
        folder = stock.with_scheduler(flux, _scheduler(name, config), tmp_path)
        with pytest.raises(InvalidSchedule, match="diffusers cannot run them together"):
            stock.imported(folder, 4)
        with pytest.raises(ValueError, match="does not support custom"):
            flux(num_inference_steps=4, output_type="latent", **_FLUX)


def test_the_baseline_of_the_pipeline_is_what_the_pipeline_runs(flux: Any, tmp_path: Path) -> None:
    folder = pipelines.flux(tmp_path / "flux", guided=False)
    model = load(str(folder), prompts=["a b", "c d"], height=16, width=16, held_out=0)
    assert model.own_sampler is not None
    found = own_scheduler(model.own_sampler, model.process, 4)
    assert not isinstance(found, str)
    flux.scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    flux(num_inference_steps=4, output_type="latent", **_FLUX)
    assert found.times == pytest.approx(flux.scheduler.sigmas.tolist(), abs=1e-6)


def test_every_imported_class_is_run_against_a_stock_pipeline() -> None:
    run = {name for name, _ in (*ON_BETAS.values(), *ON_FLOWS.values())}
    elsewhere = {  # above; by golden cases what needs torchsde, or draws what it does not use
        "DPMSolverSDEScheduler",
        "SASolverScheduler",
        "FlowMatchHeunDiscreteScheduler",
        "LTXEulerAncestralRFScheduler",
        "TCDScheduler",
    }
    assert run | elsewhere == {n for n, own in CLASSES.items() if own.fate is Fate.IMPORTED}
