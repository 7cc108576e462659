"""What a diffusers scheduler config says about the network of its pipeline.

Nothing here imports diffusers: a config is a mapping.  Which keys count, and what they are where a
config is silent, is the class's part (scheduler_classes.py); a config that names no class in
`_class_name`, as those of schedulers in memory do, is of a class that its keys fit.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from s3search.errors import InvalidConfig, InvalidSchedule, S3SearchError
from s3search.models.diffusers.scheduler_classes import (
    CLASSES,
    Kind,
    classes_that_fit,
    values_of,
)
from s3search.models.outputs import Output, weights_of
from s3search.processes import Edm, Flow, NoiseProcess, VpDiscrete, edm, flow, vp_discrete
from s3search.rules import Level

Number = TypeVar("Number", float, Tensor)

_WHOLE = 1e-6  # times this near an index are that index: they came through a logarithm
_MOST_TIMES = 100_000  # of a training table; every published one has at most 4000
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
    pipeline: str | None = None  # the pipeline's class
    left_out: tuple[str, ...] = ()  # keys that the pipeline's file has not; in config at defaults


def flow_shift(config: Mapping[str, Any], n_tokens: int, name: str | None = None) -> float:
    """The shift of a flow's times for images of so many tokens.

    A dynamic one grows with them (arXiv:2403.03206, sec. 5.3.2, as diffusers has it).
    """
    kind, values = _read(config, name)
    if kind is Kind.BETAS:
        values = {**_FLOW_MATCH, **values, "shift": values["flow_shift"]}
    if not values.get("use_dynamic_shifting"):
        return float(values["shift"])
    few, many = values["base_image_seq_len"], values["max_image_seq_len"]
    low, high = values["base_shift"], values["max_shift"]
    mu = low + (high - low) * (n_tokens - few) / (many - few)
    return math.exp(mu) if values["time_shift_type"] == "exponential" else mu


_FLOW_MATCH = CLASSES["FlowMatchEulerDiscreteScheduler"].defaults


def process_of(config: Mapping[str, Any], name: str | None = None) -> NoiseProcess:
    """The noise process that a config of the scheduler class ``name`` describes; raises
    `InvalidSchedule`.

    The shift of a flow config plays no part: times of `flow` are the shifted ones.
    """
    with _its_values():
        return _process(*_read(config, name))


@contextmanager
def _its_values() -> Iterator[None]:
    """Raises `InvalidSchedule` where a value is of a kind that diffusers would not take."""
    try:
        yield
    except S3SearchError:
        raise
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InvalidSchedule(f"no noise process follows from this config ({reason})") from error


def model_of(config: Mapping[str, Any], name: str | None = None) -> PipelineModel:
    """The network behind a config of the scheduler class ``name``, which is the config's own
    `_class_name` unless given; raises `InvalidSchedule`.
    """
    with _its_values():
        return _model(*_read(config, name))


def _model(kind: Kind, values: Mapping[str, Any]) -> PipelineModel:
    process = _process(kind, values)
    usual = {Kind.FLOW: Output.FLOW.value, Kind.SCORE: Output.SCORE.value}
    answer = usual.get(kind) or values["prediction_type"]
    known = {usual.get(kind), *_ANSWERS.get(kind, ())} - {None}
    if answer == Output.FLOW.value and not isinstance(process, Flow):
        raise InvalidSchedule(
            f"prediction_type: {answer!r} needs use_flow_sigmas: true, without which the levels "
            "are those of a table of betas"
        )
    if answer not in known:
        raise InvalidSchedule(
            f"prediction_type: {answer!r} is not known for {process.type!r}; known: "
            f"{sorted(map(str, known))}"
        )
    return PipelineModel(
        process=process,
        output=Output(answer),
        n_times=int(values["num_train_timesteps"]),
        sigma_data=float(values["sigma_data"]) if kind is Kind.EDM else None,
        learns_variance=values.get("variance_type") in ("learned", "learned_range"),
    )


_ANSWERS = {
    Kind.BETAS: {output.value for output in Output} - {Output.SCORE.value},
    Kind.EDM: {Output.EPSILON.value, Output.V.value},
}
"""What a network may answer, where the config says it."""


def _read(config: Mapping[str, Any], name: str | None) -> tuple[Kind, dict[str, Any]]:
    """What the config's levels are made of, and all values that its class reads."""
    if "s3_model" in config:  # a scheduler of ours, made for this one
        config, name = config["s3_model"], None
    name = config.get("_class_name") if name is None else name
    if name is not None:
        values = values_of(name, config)
        return CLASSES[name].kind, values
    found: dict[str, tuple[str, Kind, dict[str, Any]]] = {}
    for candidate in classes_that_fit(config):
        kind, values = CLASSES[candidate].kind, values_of(candidate, config)
        of_model = {key: values[key] for key in _OF_MODEL[kind] if values.get(key)}
        found.setdefault(repr((kind, of_model)), (candidate, kind, values))
    if len(found) == 1:
        ((_, kind, values),) = found.values()
        return kind, values
    names = [each for each, _, _ in found.values()]
    reason = f"fit {names[0]} and {names[1]}, which differ" if names else "are of no one class"
    raise InvalidConfig(
        f"_class_name: the config has none, and its keys ({', '.join(sorted(config))}) {reason}; "
        "add the class's name"
    )


_BETA_KEYS = ("beta_start", "beta_end", "beta_schedule", "trained_betas")
_OF_MODEL: Mapping[Kind, tuple[str, ...]] = {
    Kind.BETAS: (
        *_BETA_KEYS,
        "num_train_timesteps",
        "prediction_type",
        "rescale_betas_zero_snr",
        "snr_shift_scale",
        "use_flow_sigmas",
    ),
    Kind.FLOW: ("num_train_timesteps", "invert_sigmas"),
    Kind.EDM: ("sigma_min", "sigma_max", "sigma_data", "prediction_type"),
    Kind.SCORE: ("sigma_min", "sigma_max"),
}
"""The keys that decide which model a config is of."""


def _process(kind: Kind, values: Mapping[str, Any]) -> NoiseProcess:
    n = values["num_train_timesteps"]
    if not isinstance(n, int) or not 2 <= n <= _MOST_TIMES:
        raise InvalidSchedule(
            f"num_train_timesteps: needs a whole number from 2 to {_MOST_TIMES}, found {n!r}"
        )
    if values.get("invert_sigmas"):
        raise InvalidSchedule("invert_sigmas: models whose time runs up are not supported")
    if kind is Kind.FLOW or values.get("use_flow_sigmas"):
        return flow()
    if kind in (Kind.EDM, Kind.SCORE):
        return edm(sigma_min=values["sigma_min"], sigma_max=values["sigma_max"])
    if values.get("timestep_type") == "continuous":
        raise InvalidSchedule(
            "timestep_type: 'continuous' models (their time is log sigma / 4) are not supported"
        )
    process = _discrete(values, n)
    scale = values.get("snr_shift_scale", 1.0)
    if scale != 1.0:
        process = _snr_shifted(process, float(scale))
    return _zero_snr(process) if values.get("rescale_betas_zero_snr") else process


def _discrete(values: Mapping[str, Any], n: int) -> VpDiscrete:
    trained, name, low, high = (
        values[key] for key in ("trained_betas", "beta_schedule", "beta_start", "beta_end")
    )
    if trained is not None:
        return vp_discrete([float(beta) for beta in trained])
    if name in ("linear", "scaled_linear"):
        return vp_discrete(name, n=n, beta_start=low, beta_end=high)
    if name == "squaredcos_cap_v2":
        return vp_discrete("cosine", n=n)
    if name == "sigmoid":
        places = (-6 + 12 * i / (n - 1) for i in range(n))
        return vp_discrete([low + (high - low) / (1 + math.exp(-x)) for x in places])
    raise InvalidSchedule(
        f"beta_schedule: {name!r} is not known; known: linear, scaled_linear, squaredcos_cap_v2, "
        "sigmoid, or the betas themselves as trained_betas"
    )


def _snr_shifted(process: VpDiscrete, scale: float) -> VpDiscrete:
    """alpha^2 / (s + (1 - s) alpha^2) for alpha^2: the signal-to-noise ratio divided by s
    (CogVideoX, arXiv:2408.06072, after arXiv:2403.03206).
    """
    if not scale > 0.0:
        raise InvalidSchedule(f"snr_shift_scale: needs a number above 0, found {scale}")
    squares = [process.alpha(float(i)) ** 2 for i in range(process.n)]
    return _of_alphas([(a / (scale + (1.0 - scale) * a)) ** 0.5 for a in squares])


def _zero_snr(process: VpDiscrete) -> VpDiscrete:
    """alpha shifted to end at zero and scaled to keep its start (arXiv:2305.08891, alg. 1)."""
    alphas = [process.alpha(float(i)) for i in range(process.n)]
    first, last = alphas[0], alphas[-1]
    alphas = [(alpha - last) * first / (first - last) for alpha in alphas[:-1]]
    # NOTE: 2^-12 lies *above* the level before it for linear betas, where diffusers' own table
    # turns back; half that level keeps the noise growing.
    return _of_alphas([*alphas, min(_ZERO_SNR_ALPHA, alphas[-1] / 2)])


def _of_alphas(alphas: Sequence[float]) -> VpDiscrete:
    pairs = zip([1.0, *alphas[:-1]], alphas, strict=True)
    return vp_discrete([1 - (after / before) ** 2 for before, after in pairs])
