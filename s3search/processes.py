"""Noise processes: how much signal and how much noise a state holds at time t.

    x_t = alpha(t) x_0 + sigma(t) eps,   eps ~ N(0, I),   lam(t) = log(alpha(t) / sigma(t))

Times are in the process's own unit and run *down* while sampling: sigma itself for `edm`, t in (0,
1] for `vp_linear` and `vp_cosine`, the (fractional) training index for `vp_discrete`, t in [0, 1]
for `flow`. Every process has one time at which the state is clean (sigma = 0), `clean_time`; lam
is +inf there, and -inf where alpha = 0 (the start of a flow).

Every method takes a float (and computes in float64) or a tensor (and computes in the tensor's
dtype, on its device).

Sources: edm arXiv:2206.00364 Table 1; vp_linear arXiv:2011.13456 eq. 33; vp_cosine
arXiv:2102.09672 eq. 17; the piecewise linear log alpha of `vp_discrete` is that of DPM-Solver
(arXiv:2206.00927, app. D.4); flow arXiv:2210.02747.
"""

import bisect
import math
from functools import cached_property
from typing import Annotated, Any, Literal, TypeVar, cast

import torch
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from torch import Tensor

from s3search.errors import InvalidSchedule

Time = TypeVar("Time", float, Tensor)

MOST_SIGMA = 1e18  # its square is a number of float32 still
MOST_TRAINING_STEPS = 1_000_000
_TIME_SLACK = 1e-4  # relative to the range: published files hold times rounded to float32


class _Process(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @property
    def time_range(self) -> tuple[float, float]:
        """The clean end and the noisy end, in the process's unit."""
        raise NotImplementedError

    @property
    def clean_time(self) -> float:
        """The time at which sigma = 0."""
        return self.time_range[0]

    def alpha(self, t: Time) -> Time:
        """Signal level at time t."""
        raise NotImplementedError

    def sigma(self, t: Time) -> Time:
        """Noise level at time t."""
        raise NotImplementedError

    def time_of_lam(self, lam: float) -> float:
        """The time at which log(alpha / sigma) equals ``lam``."""
        raise NotImplementedError

    def lam(self, t: float) -> float:
        """Half the log signal-to-noise ratio; grows as noise falls; +-inf at the pure ends."""
        alpha, sigma = self.alpha(t), self.sigma(t)
        if sigma == 0.0:
            return math.inf
        return math.log(alpha / sigma) if alpha > 0.0 else -math.inf

    def same_levels(self, other: "_Process") -> bool:
        """Whether alpha and sigma are the same functions of the same time."""
        return self == other

    def check_time(self, t: float) -> str | None:
        """Why ``t`` is not a time of this process, or None when it is one."""
        low, high = self.time_range
        slack = _TIME_SLACK * (high - low)
        if math.isfinite(t) and low <= t <= high + slack:
            return None
        return f"{t} lies outside [{low}, {high}]"


class Edm(_Process):
    """alpha = 1, sigma = t. ``sigma_min`` and ``sigma_max`` are the range the network was trained
    for.
    """

    type: Literal["edm"] = "edm"
    sigma_min: float = Field(default=0.002, gt=0)
    sigma_max: float = Field(default=80.0, gt=0, le=MOST_SIGMA)

    @property
    def time_range(self) -> tuple[float, float]:
        """0 is clean; above ``sigma_max`` the network is only extrapolating, which is allowed."""
        return 0.0, self.sigma_max

    def same_levels(self, other: _Process) -> bool:
        """sigma is the time whatever range the network was trained for."""
        return isinstance(other, Edm)

    def check_time(self, t: float) -> str | None:
        """Any noise level is a time, as far as its square is a number of a network."""
        if t > MOST_SIGMA and math.isfinite(t):
            return f"{t} is beyond {MOST_SIGMA:g}: networks square it in float32"
        return None if math.isfinite(t) and t >= 0 else f"{t} is not a noise level"

    def alpha(self, t: Time) -> Time:
        """The signal level, which is always 1."""
        return torch.ones_like(t) if isinstance(t, Tensor) else 1.0

    def sigma(self, t: Time) -> Time:
        """The time itself."""
        return t

    def time_of_lam(self, lam: float) -> float:
        """The time at which log(alpha / sigma) = -log t is ``lam``: exp(-lam)."""
        return math.exp(-lam)


class Flow(_Process):
    """alpha = 1 - t, sigma = t (rectified flow)."""

    type: Literal["flow"] = "flow"

    @property
    def time_range(self) -> tuple[float, float]:
        """0 is clean, 1 is pure noise with alpha = 0."""
        return 0.0, 1.0

    def alpha(self, t: Time) -> Time:
        """The signal level, 1 - t."""
        return 1.0 - t

    def sigma(self, t: Time) -> Time:
        """The time itself."""
        return t

    def time_of_lam(self, lam: float) -> float:
        """1 / (1 + exp(lam)), from alpha / sigma = (1 - t) / t."""
        return 1.0 / (1.0 + math.exp(lam))


class _VariancePreserving(_Process):
    """alpha^2 + sigma^2 = 1; a subclass gives log alpha and its inverse."""

    def log_alpha(self, t: Time) -> Time:
        """Logarithm of the signal level."""
        raise NotImplementedError

    def _time_of_log_alpha(self, log_alpha: float) -> float:
        raise NotImplementedError

    def alpha(self, t: Time) -> Time:
        """The signal level, exp(log alpha)."""
        log_alpha = self.log_alpha(t)
        return torch.exp(log_alpha) if isinstance(log_alpha, Tensor) else math.exp(log_alpha)

    def sigma(self, t: Time) -> Time:
        """sqrt(1 - alpha^2), through expm1 since alpha is near 1 at the clean end."""
        log_alpha = self.log_alpha(t)
        if isinstance(log_alpha, Tensor):
            return torch.sqrt(-torch.expm1(2 * log_alpha))
        return math.sqrt(max(0.0, -math.expm1(2 * log_alpha)))

    def time_of_lam(self, lam: float) -> float:
        """Inverts log alpha = -log(1 + exp(-2 lam)) / 2."""
        softplus = (
            math.log1p(math.exp(-2 * lam)) if lam > 0 else -2 * lam + math.log1p(math.exp(2 * lam))
        )
        return self._time_of_log_alpha(-0.5 * softplus)


class VpLinear(_VariancePreserving):
    """Continuous VP with beta(t) linear from ``beta_min`` to ``beta_max`` over t in (0, 1]."""

    type: Literal["vp_linear"] = "vp_linear"
    beta_min: float = Field(default=0.1, gt=0)
    beta_max: float = Field(default=20.0, gt=0)

    @property
    def time_range(self) -> tuple[float, float]:
        """0 is clean, 1 the noisy end."""
        return 0.0, 1.0

    def log_alpha(self, t: Time) -> Time:
        """-(beta_max - beta_min) t^2 / 4 - beta_min t / 2."""
        return -0.25 * (self.beta_max - self.beta_min) * t * t - 0.5 * self.beta_min * t

    def _time_of_log_alpha(self, log_alpha: float) -> float:
        # root of a t^2 + b t + c = 0 with a = (bmax - bmin) / 4, b = bmin / 2, in the form without
        # cancellation
        a, b = 0.25 * (self.beta_max - self.beta_min), 0.5 * self.beta_min
        return -2.0 * log_alpha / (b + math.sqrt(b * b - 4.0 * a * log_alpha))


class VpCosine(_VariancePreserving):
    """Continuous cosine schedule: alpha(t) = cos((t + s) / (1 + s) pi / 2) / cos(s / (1 + s) pi /
    2).
    """

    type: Literal["vp_cosine"] = "vp_cosine"
    s: float = Field(default=0.008, gt=0)

    @property
    def time_range(self) -> tuple[float, float]:
        """0 is clean; the noisy end stops short of 1, where alpha vanishes (as DPM-Solver)."""
        return 0.0, 0.9946

    def log_alpha(self, t: Time) -> Time:
        """log of the cosine ratio, which is 0 at the clean end to the last bit.

        cos(a + d) / cos(a) = 1 - (2 sin^2(d / 2) + tan(a) sin(d)), a = s / (1 + s) pi / 2: the
        difference of two logarithms would round to either side of 0, and above it sigma has no
        value.
        """
        tangent = math.tan(self.s / (1 + self.s) * (math.pi / 2))
        d = t / (1 + self.s) * (math.pi / 2)
        if isinstance(d, Tensor):
            return torch.log1p(-(2 * torch.sin(d / 2) ** 2 + tangent * torch.sin(d)))
        return math.log1p(-(2 * math.sin(d / 2) ** 2 + tangent * math.sin(d)))

    def _time_of_log_alpha(self, log_alpha: float) -> float:
        floor = math.log(math.cos(self.s / (1 + self.s) * math.pi / 2))
        return 2 * (1 + self.s) / math.pi * math.acos(math.exp(log_alpha + floor)) - self.s


class VpDiscrete(_VariancePreserving):
    """VP over ``n`` training steps; log alpha is linear between them; index -1 is the clean end.

    ``betas`` names the usual rules (`linear`, `scaled_linear`, `cosine`) or lists the n values.
    Between -1 and 0 the first segment is continued in a straight line, as published schedules
    assume, as far as alpha < 1.
    """

    type: Literal["vp_discrete"] = "vp_discrete"
    betas: Literal["linear", "scaled_linear", "cosine"] | tuple[float, ...] = "linear"
    n: int = Field(default=1000, ge=2, le=MOST_TRAINING_STEPS)
    beta_start: float = Field(default=1e-4, gt=0, lt=1)
    beta_end: float = Field(default=0.02, gt=0, lt=1)
    s: float = Field(default=0.008, gt=0)
    max_beta: float = Field(default=0.999, gt=0, lt=1)

    @model_validator(mode="after")
    def _betas_fit(self) -> "VpDiscrete":
        if isinstance(self.betas, tuple):
            if len(self.betas) != self.n:
                raise ValueError(f"betas: need n = {self.n} values, found {len(self.betas)}")
            outside = [(i, beta) for i, beta in enumerate(self.betas) if not 0 < beta < 1]
            if outside:
                raise ValueError(f"betas[{outside[0][0]}]: {outside[0][1]} is not in (0, 1)")
        return self

    @cached_property
    def _log_alphas(self) -> list[float]:
        total, table = 0.0, []
        for beta in self._beta_table():
            total += 0.5 * math.log1p(-beta)
            table.append(total)
        return table

    def _beta_table(self) -> list[float]:
        if isinstance(self.betas, tuple):
            return list(self.betas)
        if self.betas == "cosine":
            f = [
                math.cos((i / self.n + self.s) / (1 + self.s) * math.pi / 2) ** 2
                for i in range(self.n + 1)
            ]
            return [min(1 - f[i + 1] / f[i], self.max_beta) for i in range(self.n)]
        root = 0.5 if self.betas == "scaled_linear" else 1.0
        low, high = self.beta_start**root, self.beta_end**root
        return [(low + (high - low) * i / (self.n - 1)) ** (1 / root) for i in range(self.n)]

    @property
    def time_range(self) -> tuple[float, float]:
        """-1 is clean, n - 1 the last training index."""
        return -1.0, float(self.n - 1)

    def check_time(self, t: float) -> str | None:
        """Why ``t`` is no time, as of any process, or for alpha = 1 below index 0; else None."""
        reason = super().check_time(t)
        if reason is None and t != -1.0 and self.log_alpha(t) >= 0.0:
            return f"{t} lies below the first training level; end at -1 (clean) or at 0"
        return reason

    def log_alpha(self, t: Time) -> Time:
        """Piecewise linear through the table; 0 at index -1."""
        table = self._log_alphas
        if isinstance(t, Tensor):
            nodes = torch.tensor(table, dtype=t.dtype, device=t.device)
            left = t.floor().long().clamp(0, self.n - 2)
            low, high = nodes[left], nodes[left + 1]
            line = low + (t - left) * (high - low)
            return torch.where(t == -1.0, torch.zeros_like(line), line)
        if t == -1.0:
            return 0.0
        left_index = min(max(math.floor(t), 0), self.n - 2)
        low_value, high_value = table[left_index], table[left_index + 1]
        return low_value + (t - left_index) * (high_value - low_value)

    def _time_of_log_alpha(self, log_alpha: float) -> float:
        table = self._log_alphas
        # the table falls with the index, so search its negation
        right = bisect.bisect_left(table, -log_alpha, key=lambda value: -value)
        left = min(max(right - 1, 0), self.n - 2)
        return left + (log_alpha - table[left]) / (table[left + 1] - table[left])


NoiseProcess = Annotated[
    Edm | Flow | VpLinear | VpCosine | VpDiscrete, Field(discriminator="type")
]
"""Any of the processes; parsed by its ``type``."""

NOISE_PROCESSES = (Edm, Flow, VpLinear, VpCosine, VpDiscrete)

_ADAPTER: TypeAdapter[Edm | Flow | VpLinear | VpCosine | VpDiscrete] = TypeAdapter(NoiseProcess)


def edm(sigma_min: float = 0.002, sigma_max: float = 80.0) -> Edm:
    """The EDM process: alpha = 1, sigma = t."""
    return Edm(sigma_min=sigma_min, sigma_max=sigma_max)


def flow() -> Flow:
    """Rectified flow: alpha = 1 - t, sigma = t."""
    return Flow()


def vp_linear(beta_min: float = 0.1, beta_max: float = 20.0) -> VpLinear:
    """Continuous VP with linear beta(t)."""
    return VpLinear(beta_min=beta_min, beta_max=beta_max)


def vp_cosine(s: float = 0.008) -> VpCosine:
    """Continuous cosine schedule."""
    return VpCosine(s=s)


def vp_discrete(
    betas: Any = "linear", *, n: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02
) -> VpDiscrete:
    """Discrete VP; ``betas`` is `linear`, `scaled_linear`, `cosine` or the list of values."""
    if isinstance(betas, str):
        return VpDiscrete(betas=cast("Any", betas), n=n, beta_start=beta_start, beta_end=beta_end)
    values = tuple(float(b) for b in betas)
    return VpDiscrete(betas=values, n=len(values))


def usual_end_time(process: NoiseProcess) -> float:
    """The end level of the published samplers: sigma_min, t = 1e-3, or training index 0."""
    match process:
        case Edm():
            return process.sigma_min
        case VpDiscrete():
            return 0.0
        case Flow() | VpLinear() | VpCosine():
            return 1e-3


def process_from_dict(data: Any) -> Edm | Flow | VpLinear | VpCosine | VpDiscrete:
    """The process that ``{"type": ..., ...}`` describes; raises `InvalidSchedule`."""
    try:
        return _ADAPTER.validate_python(data)
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(["process", *(str(part) for part in first["loc"])])
        raise InvalidSchedule(f"{path}: {first['msg']}") from error
