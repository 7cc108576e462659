"""ComfyUI's node file, in a stand-in for the parts of ComfyUI that it meets.

The stand-in does what ComfyUI's KSAMPLER does with a sampler function and with noise (EPS and
CONST models); ComfyUI itself is not run.
"""

import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from s3search.errors import InvalidSchedule
from s3search.processes import Flow, NoiseProcess, edm, flow, vp_discrete
from s3search.rules import StepNoise
from s3search.schedules import published
from s3search.schedules.schedule import Schedule
from s3search.solvers.image_to_image import image_to_image_start
from s3search.solvers.plan import compile_plan
from s3search.solvers.sample import run_plan
from s3search.solvers.step_noise import from_generator
from tests.formats.exporters.files import SigmaDenoiser, exported
from tests.support.helpers import PROCESSES, gaussian, max_abs, noise


@dataclass
class _KSampler:
    """Scales the noise, calls the sampler function, unscales what it returns."""

    function: Callable[..., Tensor]

    def sample(
        self,
        process: NoiseProcess,
        sigmas: Tensor,
        latent: Tensor,
        seen: Any,
        *,
        adds_noise: bool = True,
        seed: int = 41,
    ) -> Tensor:
        first, last = float(sigmas[0]), float(sigmas[-1])
        added = noise() if adds_noise else torch.zeros_like(noise())
        if isinstance(process, Flow):
            x = first * added + (1 - first) * latent
        else:
            is_noisiest = first >= math.exp(-process.lam(process.time_range[1])) * (1 - 1e-5)
            x = added * (math.hypot(1.0, first) if is_noisiest else first) + latent
        found = self.function(
            SigmaDenoiser(process),
            x,
            sigmas,
            extra_args={"model_options": {}, "seed": seed},
            callback=seen,
            disable=True,
        )
        return found / (1 - last) if isinstance(process, Flow) else found


@pytest.fixture
def comfy(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    package, samplers = ModuleType("comfy"), ModuleType("comfy.samplers")
    samplers.KSAMPLER = _KSampler  # type: ignore[attr-defined]
    samplers.sampler_object = lambda name: f"sampler {name}"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "comfy", package)
    monkeypatch.setitem(sys.modules, "comfy.samplers", samplers)
    yield samplers


def _node(schedule: Schedule, folder: Path) -> tuple[Any, Any]:
    names, report = exported("comfyui", schedule, folder)
    (key,) = names["NODE_CLASS_MAPPINGS"]
    assert names["NODE_DISPLAY_NAME_MAPPINGS"][key].startswith("s3search")
    kind = names["NODE_CLASS_MAPPINGS"][key]
    assert kind.RETURN_TYPES == ("SIGMAS", "SAMPLER")
    node = kind()
    assert hasattr(node, kind.FUNCTION)
    return node, report


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES.keys())
@pytest.mark.parametrize("skipped", [0, 2])
def test_the_node_makes_the_images_of_our_loop(
    process: NoiseProcess, skipped: int, comfy: ModuleType, tmp_path: Path
) -> None:
    schedule = published.unipc(process, nfe=5, order=3)
    node, report = _node(schedule, tmp_path)
    limits = node.INPUT_TYPES()["required"]["start_at_step"][1]
    assert (limits["min"], limits["max"]) == (0, 4)
    sigmas, sampler = getattr(node, node.FUNCTION)(skipped)
    assert sigmas.dtype == torch.float32
    assert len(sigmas) == 6 - skipped
    latent = torch.full((4, 1, 2, 2), 0.3 if skipped else 0.0, dtype=torch.float64)
    seen: list[Any] = []
    found = sampler.sample(process, sigmas, latent, seen.append)
    assert len(seen) == 5 - skipped
    t = schedule.times[skipped]
    rest = image_to_image_start(schedule, t).schedule if skipped else schedule
    alpha, sigma = process.alpha(t), process.sigma(t)
    x = alpha * latent + sigma * noise()
    exact = run_plan(gaussian(process), compile_plan(rest), x)
    assert max_abs(found - exact) < (1e-5 if skipped or isinstance(process, Flow) else 2e-2)
    if not skipped and not isinstance(process, Flow):  # begun as ComfyUI does, it is exact again
        factor = math.hypot(alpha, sigma) / sigma
        scaled = run_plan(gaussian(process), compile_plan(rest), factor * x)
        is_full = t >= process.time_range[1] * (1 - 1e-5)
        assert max_abs(found - (scaled if is_full else exact)) < 1e-5
        assert any("sqrt(1 + sigma^2)" in item.what for item in report.approximated)


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES.keys())
def test_split_sigmas_run_on_two_models(
    process: NoiseProcess, comfy: ModuleType, tmp_path: Path
) -> None:
    """Two experts: SplitSigmas gives the first levels to one model and the rest to the other."""
    schedule = published.unipc(process, nfe=5, order=3)
    node, _ = _node(schedule, tmp_path)
    sigmas, sampler = getattr(node, node.FUNCTION)(0)
    empty = torch.zeros((4, 1, 2, 2), dtype=torch.float64)
    whole: list[Any] = []
    sampler.sample(process, sigmas, empty, whole.append)
    for k in range(1, 5):
        first: list[Any] = []
        rest: list[Any] = []
        between = sampler.sample(process, sigmas[: k + 1], empty, first.append)
        found = sampler.sample(process, sigmas[k:], between, rest.append, adds_noise=False)
        assert (len(first), len(rest)) == (k, 5 - k)
        assert max_abs(rest[0]["x"] - whole[k]["x"]) < 1e-6  # where the whole run calls next
        t = schedule.times[k]
        plan = compile_plan(image_to_image_start(schedule, t).schedule)
        x = whole[k]["x"] * (1.0 if isinstance(process, Flow) else process.alpha(t))
        assert max_abs(found - run_plan(gaussian(process), plan, x)) < 1e-4


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES.keys())
def test_a_stochastic_node_draws_from_the_seed_as_comfyuis_samplers_do(
    process: NoiseProcess, comfy: ModuleType, tmp_path: Path
) -> None:
    base = published.dpmpp_2m(process, nfe=5)
    steps = [step.model_copy(update={"noise": StepNoise(amount=0.6)}) for step in base.steps[:-1]]
    schedule = base.changed(steps=(*steps, base.steps[-1]))
    node, report = _node(schedule, tmp_path)
    sigmas, sampler = getattr(node, node.FUNCTION)(1)  # where the first state is the schedule's
    latent = torch.full((4, 1, 2, 2), 0.3, dtype=torch.float64)
    found = sampler.sample(process, sigmas, latent, None, seed=41)
    again, other = (sampler.sample(process, sigmas, latent, None, seed=s) for s in (41, 42))
    t = schedule.times[1]
    plan = compile_plan(image_to_image_start(schedule, t).schedule)
    x = process.alpha(t) * latent + process.sigma(t) * noise()
    draws = from_generator(torch.Generator().manual_seed(42))  # the seed after it, on the CPU
    assert max_abs(found - run_plan(gaussian(process), plan, x, draws)) < 1e-5
    assert torch.equal(found, again) and max_abs(found - other) > 1e-3
    assert any("noise sampler" in item for item in report.exact)


def test_the_rounding_of_training_steps_is_measured(comfy: ModuleType, tmp_path: Path) -> None:
    fractional = published.ddim(vp_discrete(), nfe=3, spacing="logsnr")
    _, report = _node(fractional, tmp_path)
    told = next(item for item in report.approximated if "whole training step" in item.what)
    times = compile_plan(fractional).network_times
    assert told.measured == pytest.approx(max(abs(t - round(t)) for t in times))
    assert told.measured > 0.01
    whole = published.ddim_on(vp_discrete(), [999, 500, 10])
    _, report = _node(whole, tmp_path)
    told = next(item for item in report.approximated if "whole training step" in item.what)
    assert told.measured == 0


def test_known_samplers_are_comfyuis_own(comfy: ModuleType, tmp_path: Path) -> None:
    schedule = published.flow_euler(flow(), nfe=4)
    node, report = _node(schedule, tmp_path)
    sigmas, sampler = getattr(node, node.FUNCTION)(1)
    assert sampler == "sampler euler"
    assert sigmas.tolist() == pytest.approx(schedule.times[1:])
    assert report.approximated == ()
    assert node.INPUT_TYPES()["required"]["start_at_step"][1]["max"] == 3


@pytest.mark.parametrize("solver", [published.unipc, published.ddim])
def test_a_node_reads_as_comfyuis_users_expect(
    solver: Callable[..., Schedule], tmp_path: Path
) -> None:
    """Described, its outputs named and explained, a knob only where it does something."""
    node, _ = _node(solver(edm(), nfe=3), tmp_path)
    assert "3 network calls" in node.DESCRIPTION
    assert node.RETURN_NAMES == ("sigmas", "sampler")
    assert len(node.OUTPUT_TOOLTIPS) == 2
    kind, knob = node.INPUT_TYPES()["required"]["start_at_step"]
    assert (kind, knob["max"]) == ("INT", 2)
    assert "image-to-image" in knob["tooltip"]
    only, _ = _node(solver(edm(), nfe=1), tmp_path)
    assert only.INPUT_TYPES() == {"required": {}}


def test_a_file_explains_itself_in_its_first_ten_lines(tmp_path: Path) -> None:
    exported("comfyui", published.unipc(edm(), nfe=3), tmp_path)
    text = (tmp_path / "exported.py").read_text()
    first = "\n".join(text.splitlines()[:10])
    for word in ("3 network calls", "custom_nodes", "SamplerCustom", "start_at_step"):
        assert word in first
    assert "noqa" not in text
    assert "type: ignore" not in text


def test_outside_comfyui_the_node_says_where_it_belongs(tmp_path: Path) -> None:
    node, _ = _node(published.unipc(edm(), nfe=3), tmp_path)
    with pytest.raises(RuntimeError, match="ComfyUI/custom_nodes"):
        getattr(node, node.FUNCTION)()


def test_guidance_call_by_call_is_refused(tmp_path: Path) -> None:
    schedule = published.with_guidance(published.ddim(edm(), nfe=2), [1.0, 3.0])
    with pytest.raises(InvalidSchedule, match="one scale for all calls; use --format diffusers"):
        exported("comfyui", schedule, tmp_path)
