"""Networks that answer epsilon, v, velocity, score or the clean image, against a closed form."""

import math
import re
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import s3search
from s3search.errors import InvalidConfig
from s3search.evaluation.fingerprints import device_of, fingerprint_of, modules_of
from s3search.models.outputs import Output, adapter_of
from s3search.processes import NoiseProcess, edm, flow, vp_discrete, vp_linear
from s3search.schedules import published
from s3search.solvers.plan import compile_plan
from s3search.solvers.sample import sample
from tests.support.helpers import PROCESSES, SHAPE, gaussian, max_abs, noise

_EACH_PROCESS = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES.keys())
_EACH_OUTPUT = pytest.mark.parametrize("output", list(Output))


def _adapter(output: Output) -> Any:
    return getattr(s3search.models, adapter_of(output))


def answer_of(output: Output, x: Tensor, x0: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """What a network of this output says, from the definitions."""
    eps = (x - alpha * x0) / sigma
    match output:
        case Output.SAMPLE:
            return x0
        case Output.EPSILON:
            return eps
        case Output.V:
            return (alpha * eps - sigma * x0) / torch.sqrt(alpha**2 + sigma**2)
        case Output.FLOW:
            return eps - x0
        case Output.SCORE:
            return -eps / sigma


class Exact(nn.Module):
    """A network that answers what a Gaussian's exact denoiser implies."""

    def __init__(self, process: NoiseProcess, output: Output) -> None:
        super().__init__()
        self.one = nn.Parameter(torch.ones((), dtype=torch.float64))
        self._exact, self._process, self._output = gaussian(process), process, output
        self.seen: list[tuple[Tensor, Tensor]] = []

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.seen.append((x, t))
        alpha, sigma = (
            level(t)[:, None, None, None] for level in (self._process.alpha, self._process.sigma)
        )
        return self.one * answer_of(self._output, x, self._exact(x, t), alpha, sigma)


def _apart(one: Tensor, other: Tensor) -> float:
    return max_abs((one - other).detach())


def _times(process: NoiseProcess) -> Tensor:
    low, high = process.time_range
    return low + (high - low) * torch.tensor([0.02, 0.3, 0.7, 0.97], dtype=torch.float64)


@_EACH_PROCESS
@_EACH_OUTPUT
def test_an_adapter_gives_the_exact_denoiser(process: NoiseProcess, output: Output) -> None:
    net, t = Exact(process, output), _times(process)
    denoiser = _adapter(output)(net, process, sample_shape=SHAPE)
    x = noise().requires_grad_()
    clean = denoiser(x, t)
    assert _apart(clean, gaussian(process)(x, t)) < 1e-11
    clean.square().sum().backward()
    assert x.grad is not None and net.one.grad is not None
    assert bool(torch.isfinite(x.grad).all()) and float(x.grad.abs().max()) > 0
    assert float(net.one.grad.abs()) > 0


@_EACH_OUTPUT
def test_schedules_run_on_an_adapted_network(output: Output) -> None:
    process = flow()
    schedule = published.dpmpp_2m(process, nfe=5)
    denoiser = _adapter(output)(Exact(process, output), process, sample_shape=SHAPE)
    plan = compile_plan(schedule)
    exact = sample(gaussian(process), plan, noise())
    assert _apart(sample(denoiser, plan, noise()), exact) < 0.01


@pytest.mark.parametrize("output", [Output.EPSILON, Output.SCORE])
@pytest.mark.parametrize(
    "process", [flow(), vp_discrete([0.1] * 9 + [0.9999999])], ids=["flow", "zero SNR"]
)
def test_at_pure_noise_the_answer_is_the_limit(process: NoiseProcess, output: Output) -> None:
    end = process.time_range[1]
    net = Exact(process, output)
    denoiser = _adapter(output)(net, process, sample_shape=SHAPE)
    t = torch.full((4,), end, dtype=torch.float64)
    assert _apart(denoiser(noise(), t), gaussian(process)(noise(), t)) < 0.01
    (_, asked) = net.seen[-1]
    assert process.alpha(float(asked[0])) == pytest.approx(1e-3, rel=0.01)


@pytest.mark.parametrize("output", [Output.SAMPLE, Output.V, Output.FLOW])
def test_other_outputs_say_something_at_pure_noise(output: Output) -> None:
    net = Exact(flow(), output)
    denoiser = _adapter(output)(net, flow(), sample_shape=SHAPE)
    t = torch.ones(4, dtype=torch.float64)
    assert _apart(denoiser(noise(), t), gaussian(flow())(noise(), t)) < 1e-12


def test_the_network_reads_the_time_and_the_scale_that_it_knows() -> None:
    seen: list[tuple[Tensor, Tensor]] = []

    def net(x: Tensor, t: Tensor) -> Tensor:
        seen.append((x, t))
        return x

    x, t = noise(dtype=torch.float32), torch.full((4,), 0.5)
    denoise = s3search.models.from_epsilon
    denoise(net, vp_linear(), sample_shape=SHAPE, time=999.0)(x, t)
    denoise(net, edm(), sample_shape=SHAPE, time=lambda s: s.log() / 4, sigma_data=0.5)(x, t)
    denoise(net, vp_linear(), sample_shape=SHAPE, sigma_data=1.0)(x, t)
    assert torch.equal(seen[0][1], t * 999.0)
    assert torch.allclose(seen[1][1], torch.full((4,), math.log(0.5) / 4))
    assert torch.allclose(seen[1][0], x / math.sqrt(0.5**2 + 0.5**2))
    assert torch.allclose(seen[2][0], x)  # states of a variance preserving process have it


def test_what_networks_add_to_their_answer_is_left_out() -> None:
    process, x, t = vp_linear(), noise(dtype=torch.float32), torch.full((4,), 0.5)
    plain = s3search.models.from_epsilon(lambda x, t: 0.3 * x, process, sample_shape=SHAPE)
    wrapped = s3search.models.from_epsilon(
        lambda x, t: types.SimpleNamespace(sample=torch.cat([0.3 * x.double(), x.double()], 1)),
        process,
        sample_shape=SHAPE,
    )
    assert torch.allclose(wrapped(x, t), plain(x, t))
    assert wrapped(x, t).dtype == torch.float32


def test_a_module_stays_in_reach() -> None:
    net = Exact(vp_linear(), Output.V)
    as_v = s3search.models.from_v(net, vp_linear(), sample_shape=SHAPE)
    as_epsilon = s3search.models.from_epsilon(net, vp_linear(), sample_shape=SHAPE)
    assert isinstance(as_v, nn.Module)
    assert [name for name, _ in as_v.named_parameters()] == ["network.one"]
    assert modules_of(as_v) == [as_v] and device_of(as_v).type == "cpu"
    assert fingerprint_of(as_v) != fingerprint_of(as_epsilon)
    in_function = s3search.models.from_v(lambda x, t: -net(x, t), edm(), sample_shape=SHAPE)
    assert modules_of(in_function) == [net]


def test_the_examples_of_the_page_run() -> None:
    page = Path(s3search.__file__).parents[1] / "docs" / "models-own.md"
    text = page.read_text(encoding="utf-8")
    examples = re.findall(r"^<!-- test -->\s*\n```python\n(.*?)^```", text, re.M | re.S)
    first, *others = [_run(each) for each in examples]
    x = torch.randn(2, 3, 32, 32)
    assert first["denoiser"](x, torch.full((2,), 0.5)).shape == x.shape
    assert others
    assert [each for each in s3search.models.__all__ if f"| `{each}` |" not in text] == []


def _run(example: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(example, "docs/models-own.md", "exec"), names)
    return names


def test_what_is_missing_is_said() -> None:
    adapt: Any = s3search.models.from_velocity
    with pytest.raises(InvalidConfig, match=r"from_velocity: give sample_shape=\(C, H, W\)"):
        adapt(lambda x, t: x, flow())
    with pytest.raises(InvalidConfig, match="from_velocity: needs a network and one of"):
        adapt(lambda x, t: x, "flow", sample_shape=SHAPE)
    with pytest.raises(InvalidConfig, match="the network returned a str"):
        adapt(lambda x, t: "x", flow(), sample_shape=SHAPE)(noise(), torch.ones(4))
