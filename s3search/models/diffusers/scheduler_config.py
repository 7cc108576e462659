"""What a diffusers scheduler config says about the network of its pipeline.

Nothing here imports diffusers: a config is a mapping.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from s3search.errors import InvalidSchedule
from s3search.models.outputs import Output, weights_of
from s3search.processes import Edm, Flow, NoiseProcess, VpDiscrete, edm, flow, vp_discrete
from s3search.rules import Level

Number = TypeVar("Number", float, Tensor)

_WHOLE = 1e-6  # times this near an index are that index: they came through a logarithm
_ZERO_SNR_ALPHA = 2.0**-12  # what diffusers puts for alpha = 0 after rescale_betas_zero_snr


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineModel:
    """What the pipeline's network expects and answers."""

    process: NoiseProcess
    output: Output
    n_times: int
    sigma_data: float | None = None  # set for EDM's preconditioning
    learns_variance: bool = False

    def network_times(self, times: Sequence[float]) -> Tensor:
        """Timesteps as the network takes them; whole training indices as integers."""
        match self.process:
            case Flow():
                return torch.tensor([t * self.n_times for t in times], dtype=torch.float32)
            case Edm():
                own = [t if self.sigma_data is None else math.log(t) / 4 for t in times]
                return torch.tensor(own, dtype=torch.float32)
        if all(abs(t - round(t)) < _WHOLE for t in times):
            return torch.tensor([round(t) for t in times], dtype=torch.int64)
        return torch.tensor(times, dtype=torch.float32)

    def network_sigma(self, at: Level) -> float:
        """The noise level as diffusers counts it: relative to the signal, but not for flows."""
        return at.sigma if isinstance(self.process, Flow) else at.sigma / at.alpha

    def process_time(self, timestep: float) -> float:
        """Inverse of `network_times`, for one."""
        match self.process:
            case Flow():
                return timestep / self.n_times
            case Edm() if self.sigma_data is not None:
                return math.exp(4 * timestep)
        return timestep

    def timesteps(self, t: Tensor) -> Tensor:  # (B,) each
        """`network_times` for a batch, in the dtype of ``t`` and differentiable."""
        match self.process:
            case Flow():
                return t * self.n_times
            case Edm() if self.sigma_data is not None:
                return t.log() / 4
        return t

    def x0_weights(self, at: Level) -> tuple[float, float]:
        """a, b with D = a x + b F; raises `InvalidSchedule` where there are none."""
        if self.output is Output.EPSILON and self.sigma_data is None and at.alpha == 0.0:
            raise InvalidSchedule(
                "times[0]: a noise prediction says nothing at pure noise (alpha = 0); "
                "start the schedule at a later time"
            )
        return self.weights(at.alpha, at.sigma)

    def weights(self, alpha: Number, sigma: Number) -> tuple[Number, Number]:
        """a, b with D = a x + b F, for numbers or tensors; infinite where there are none."""
        if self.sigma_data is not None:
            # arXiv:2206.00364, table 1; diffusers' v_prediction is the other sign of F
            norm = (sigma * sigma + self.sigma_data**2) ** 0.5
            sign = -1.0 if self.output is Output.V else 1.0
            return (self.sigma_data / norm) ** 2, sign * sigma * self.sigma_data / norm
        return weights_of(self.output, alpha, sigma)


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnSampler:
    """What a pipeline runs unless told otherwise."""

    scheduler: str  # its class
    config: Mapping[str, Any]
    shift: float | None = None  # of a flow, at the size of the images asked for
    left_out: tuple[str, ...] = ()  # keys that the pipeline's file has not; in config at defaults


def flow_shift(config: Mapping[str, Any], n_tokens: int) -> float:
    """The shift of a flow's times for images of so many tokens.

    A dynamic one grows with them (arXiv:2403.03206, sec. 5.3.2, as diffusers has it).
    """
    if not config.get("use_dynamic_shifting"):
        return float(config.get("shift", 1.0))
    few, many = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    low, high = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    mu = low + (high - low) * (n_tokens - few) / (many - few)
    return math.exp(mu) if config.get("time_shift_type", "exponential") == "exponential" else mu


def process_of(config: Mapping[str, Any]) -> NoiseProcess:
    """The noise process a diffusers scheduler config describes; raises `InvalidSchedule`.

    The shift of a flow config plays no part: times of `flow` are the shifted ones.
    """
    if _is_flow(config):
        if config.get("invert_sigmas"):
            raise InvalidSchedule("invert_sigmas: models whose time runs up are not supported")
        return flow()
    if "sigma_schedule" in config and "sigma_data" in config:
        # Stable Audio's cosine scheduler has solver_order without algorithm_type
        if ("solver_order" in config) != ("algorithm_type" in config):
            raise InvalidSchedule("sigma_schedule: the cosine DPM-Solver's models are unsupported")
        return edm(sigma_min=config["sigma_min"], sigma_max=config["sigma_max"])
    if _is_score(config):
        return edm(sigma_min=config["sigma_min"], sigma_max=config["sigma_max"])
    if config.get("timestep_type") == "continuous":
        raise InvalidSchedule(
            "timestep_type: 'continuous' models (their time is log sigma / 4) are not supported"
        )
    return _discrete(config)


def _is_flow(config: Mapping[str, Any]) -> bool:
    if "beta_schedule" not in config:
        return "shift" in config
    return bool(config.get("use_flow_sigmas")) or config.get("prediction_type") == Output.FLOW


def _is_score(config: Mapping[str, Any]) -> bool:
    """Whether the config is that of ScoreSdeVeScheduler."""
    return "beta_schedule" not in config and {"snr", "sigma_min", "sigma_max"} <= set(config)


def _discrete(config: Mapping[str, Any]) -> VpDiscrete:
    trained, name = config.get("trained_betas"), config.get("beta_schedule")
    n = config.get("num_train_timesteps", 1000)
    low, high = config.get("beta_start", 1e-4), config.get("beta_end", 0.02)
    if trained is not None:
        process = vp_discrete([float(beta) for beta in trained])
    elif name in ("linear", "scaled_linear"):
        process = vp_discrete(name, n=n, beta_start=low, beta_end=high)
    elif name == "squaredcos_cap_v2":
        process = vp_discrete("cosine", n=n)
    elif name == "sigmoid":
        places = (-6 + 12 * i / (n - 1) for i in range(n))
        process = vp_discrete([low + (high - low) / (1 + math.exp(-x)) for x in places])
    else:
        raise InvalidSchedule(
            f"beta_schedule: {name!r} is not known (fields: {', '.join(sorted(config))}); known: "
            "linear, scaled_linear, squaredcos_cap_v2, sigmoid, trained_betas, flow matching, EDM"
        )
    return _zero_snr(process) if config.get("rescale_betas_zero_snr") else process


def _zero_snr(process: VpDiscrete) -> VpDiscrete:
    """alpha shifted to end at zero and scaled to keep its start (arXiv:2305.08891, alg. 1)."""
    alphas = [process.alpha(float(i)) for i in range(process.n)]
    first, last = alphas[0], alphas[-1]
    alphas = [(alpha - last) * first / (first - last) for alpha in alphas[:-1]]
    # NOTE: 2^-12 lies *above* the level before it for linear betas, where diffusers' own table
    # turns back; half that level keeps the noise growing.
    end = min(_ZERO_SNR_ALPHA, alphas[-1] / 2)
    pairs = zip([1.0, *alphas], [*alphas, end], strict=True)
    return vp_discrete([1 - (after / before) ** 2 for before, after in pairs])


def model_of(config: Mapping[str, Any]) -> PipelineModel:
    """The network behind a diffusers scheduler config; raises `InvalidSchedule`."""
    process = process_of(config)
    is_score = _is_score(config)
    usual = Output.FLOW if _is_flow(config) else Output.SCORE if is_score else Output.EPSILON
    name = config.get("prediction_type", usual.value)
    known = {output.value for output in Output} - {Output.SCORE.value}
    if is_score:
        known = {Output.SCORE.value}
    elif isinstance(process, Edm):
        known = {Output.EPSILON.value, Output.V.value}
    if name not in known:
        raise InvalidSchedule(
            f"prediction_type: {name!r} is not known for {process.type!r}; known: {sorted(known)}"
        )
    return PipelineModel(
        process=process,
        output=Output(name),
        n_times=int(config.get("num_train_timesteps", 1000)),
        sigma_data=float(config["sigma_data"])
        if isinstance(process, Edm) and not is_score
        else None,
        learns_variance=config.get("variance_type") in ("learned", "learned_range"),
    )
