"""One run of a plan inside somebody else's loop: the pipeline calls the network, and asks before
and after each call.
"""

import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor

from s3search.errors import InvalidSchedule
from s3search.models.diffusers.scheduler_config import PipelineModel
from s3search.solvers.plan import Plan
from s3search.solvers.sample import advance
from s3search.solvers.shapes import over_the_rest, without_variance
from s3search.solvers.start_map import jumped
from s3search.solvers.step_noise import Draws, nothing


class Thresholding(StrEnum):
    """What is done to the network's estimate of the clean image."""

    CONFIG = "config"  # as `clip_sample` and `thresholding` of the pipeline's config say
    CLIP = "clip"  # clamp to +-clip_sample_range
    DYNAMIC = "dynamic"  # Imagen's percentile rule (arXiv:2205.11487, sec. 2.3)


class Threshold:
    """Nothing, a clamp, or dynamic thresholding of D."""

    def __init__(self, kind: Thresholding | None, config: Mapping[str, Any]) -> None:
        self.kind = kind
        self.clip_range = float(config.get("clip_sample_range", 1.0))
        self.ratio = float(config.get("dynamic_thresholding_ratio", 0.995))
        self.largest = float(config.get("sample_max_value", 1.0))

    def __call__(self, x0: Tensor) -> Tensor:
        match self.kind:
            case Thresholding.CLIP:
                return x0.clamp(-self.clip_range, self.clip_range)
            case Thresholding.DYNAMIC:
                size = torch.quantile(x0.abs().flatten(1), self.ratio, dim=1)
                size = over_the_rest(size.clamp(1.0, max(1.0, self.largest)), x0)
                return x0.clamp(-size, size) / size
            case _:
                return x0


class Replay:
    """The states that the pipeline has handed back, and the predictions there.

    Sums are formed in float32 where the pipeline runs in half precision.
    """

    def __init__(self, plan: Plan, model: PipelineModel, threshold: Threshold) -> None:
        self.plan = plan
        self._model, self._threshold = model, threshold
        self._states: list[Tensor] = []
        self._predictions: list[Tensor] = []
        self._scaled: tuple[Tensor, Tensor] | None = None

    def seen(self, sample: Tensor, call: int) -> Tensor:
        """What the network must see at a call: the state, for most models the sample itself."""
        seen = sample
        if self._starts_analytically(call):
            seen = self._analytic_states(sample)[-1].to(sample.dtype)
        if self._model.sigma_data is not None:
            at = self.plan.call_levels[max(call, 0)]
            seen = seen / math.hypot(at.sigma, self._model.sigma_data)  # c_in of EDM
        if seen is not sample:
            self._scaled = (sample, seen)
        return seen

    def unscaled(self, sample: Tensor, call: int) -> Tensor:
        """The pipeline's state, also where it passes on what `seen` gave; raises
        `InvalidSchedule` where it never asked.
        """
        scaled, self._scaled = self._scaled, None
        needed = self._model.sigma_data is not None or self._starts_analytically(call)
        if needed and scaled is None:
            what = "an analytic start" if self._starts_analytically(call) else "an EDM model"
            raise InvalidSchedule(
                f"start.kind: {what} needs scheduler.scale_model_input before every network call, "
                "and this pipeline does not make it; use a schedule whose start is 'network'"
            )
        return scaled[0] if scaled is not None and sample is scaled[1] else sample

    def taken(
        self, sample: Tensor, model_output: Tensor, call: int, draws: Draws = nothing
    ) -> tuple[Tensor, Tensor]:
        """The next state that the network must see, or the image, and the prediction at
        ``sample``; ``draws`` is what noisy rows draw between the two.
        """
        self._take(sample, model_output, call)
        advance(self.plan, self._states, self._predictions, draws)
        new, x0 = self._states[-1], self._predictions[-1]
        if call == self.plan.nfe - 1:
            self._states, self._predictions = [], []
        return new.to(sample.dtype), x0.to(sample.dtype)

    def _starts_analytically(self, call: int) -> bool:
        return call == 0 and (self.plan.evaluated[0] > 0 or self.plan.start_map is not None)

    def _analytic_states(self, noise: Tensor) -> list[Tensor]:
        """The states up to the first call's, from the scaled noise."""
        states = [jumped(self.plan.start_map, noise.to(_compute_dtype(noise)))]
        advance(self.plan, states, [])
        return states

    def _take(self, sample: Tensor, model_output: Tensor, call: int) -> None:
        """Records the state of this call, as the pipeline holds it, and the prediction there."""
        row = self.plan.evaluated[call]
        x = sample.to(_compute_dtype(sample))
        if self._starts_analytically(call):
            self._states = self._analytic_states(sample)
            x = self._states[-1].to(sample.dtype).to(x.dtype)  # as the network saw it
        self._states[row:] = [x]
        if self._model.learns_variance:
            model_output = without_variance(model_output, sample)
        a, b = self._model.x0_weights(self.plan.call_levels[call])
        x0 = a * x + b * model_output.to(x.dtype)
        self._predictions.append(self._threshold(x0))


def _compute_dtype(x: Tensor) -> torch.dtype:
    return torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype
