"""Schedulers that a pipeline is given in the place of its own, for one call of it.

`PlanScheduler` replays a plan, as `S3Scheduler` does a schedule, and notes what it was asked.
`PredictionScheduler` lets the pipeline make a single network call at a level and state that are
chosen from outside, and leaves the pipeline with the network's prediction.  `EndScheduler` makes
no call: what the pipeline does with a last state is all that is left.  Where a pipeline needs a
call to get there, `LateEndScheduler` lets it make one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from s3search.errors import InvalidSchedule
from s3search.integrations.diffusers import S3Scheduler, S3SchedulerOutput
from s3search.integrations.pipelines.packing import TokenOrder
from s3search.integrations.replay import Threshold
from s3search.models.diffusers.scheduler_config import PipelineModel
from s3search.solvers.plan import Plan
from s3search.solvers.step_noise import Draws, nothing


@dataclass(slots=True, eq=False)
class Asked:
    """What a pipeline asked of its scheduler in one call."""

    samples: list[Tensor] = field(default_factory=list)  # handed to each step
    states: list[Tensor] = field(default_factory=list)  # that each step returned
    predictions: list[Tensor] = field(default_factory=list)
    timesteps: list[float] = field(default_factory=list)  # that each step was told
    noised: Tensor | None = None  # noise that was put on an image before the first step
    mu: float | None = None  # of a flow's shift


class Driven(S3Scheduler):
    """What the schedulers here have in common: the model, and no schedule of their own."""

    def __init__(self, model: PipelineModel, config: dict[str, Any]) -> None:
        # a schedule is what S3Scheduler's own constructor asks for
        own = {key: value for key, value in config.items() if not key.startswith("_")}
        self.register_to_config(**own)  # type: ignore[no-untyped-call]  # diffusers
        self._model, self._threshold, self._ems = model, Threshold(None, config), None
        self.num_train_timesteps = model.n_times
        self.asked = Asked()


class PlanScheduler(Driven):
    """Replays one plan; what noisy rows draw is given."""

    def __init__(
        self, model: PipelineModel, config: dict[str, Any], plan: Plan, draws: Draws = nothing
    ) -> None:
        super().__init__(model, config)
        self._plan, self._given_draws = plan, draws
        self.set_timesteps()

    @property
    def num_steps(self) -> int:
        """The plan's network calls."""
        return self._plan.nfe

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        timesteps: Sequence[float] | Tensor | None = None,
        sigmas: Sequence[float] | Tensor | None = None,
        mu: float | None = None,
    ) -> None:
        """Begins a run of the plan."""
        super().set_timesteps(num_inference_steps, device, timesteps, sigmas, mu)
        self.asked = Asked(mu=None if mu is None else float(mu))

    def step(
        self,
        model_output: Tensor,
        timestep: float | Tensor,
        sample: Tensor,
        generator: Any = None,
        return_dict: bool = True,
        *,
        eta: float = 0.0,
        use_clipped_model_output: bool | None = None,
        **others: Any,
    ) -> S3SchedulerOutput | tuple[Tensor, ...]:
        """The plan's next state, which is noted with what led to it."""
        own = {"eta": eta, "use_clipped_model_output": use_clipped_model_output, **others}
        draws: Any = self._given_draws  # in the place of a generator
        made = super().step(model_output, timestep, sample, draws, True, **own)
        assert isinstance(made, S3SchedulerOutput)
        state, prediction = made.prev_sample, made.pred_original_sample
        assert prediction is not None
        self.asked.samples.append(sample)
        self.asked.states.append(state)
        self.asked.predictions.append(prediction)
        self.asked.timesteps.append(float(timestep))
        return made if return_dict else (state, prediction)

    def index_for_timestep(
        self, timestep: float | Tensor, schedule_timesteps: Tensor | None = None
    ) -> int:
        """The first iteration at this timestep; the first of all for one that is not known, which
        the notes tell.
        """
        try:
            return super().index_for_timestep(timestep, schedule_timesteps)
        except InvalidSchedule:
            return 0

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """The noised image, which is where image-to-image begins."""
        if self._step_index is None:
            self.asked.noised = noise
        return super().add_noise(original_samples, noise, timesteps)

    def _chosen(self, n: int) -> Plan:
        if n != self._plan.nfe:
            raise InvalidSchedule(
                f"the pipeline asks its scheduler for {n} steps where num_inference_steps is "
                f"{self._plan.nfe}; its steps are not the network calls that are counted"
            )
        return self._plan

    def _begin_inside(self, index: int) -> None:
        if index:
            raise InvalidSchedule(
                f"the pipeline leaves out the first {index} of {self._plan.nfe} calls, as "
                "image-to-image does with strength < 1; put strength = 1.0 into call"
            )


class Answered(Exception):
    """Leaves a pipeline's call with what it was called for."""

    def __init__(self, prediction: Tensor) -> None:
        super().__init__("the network has answered")
        self.prediction = prediction


class PredictionScheduler(Driven):
    """One call of the network at time ``t`` () of states ``x`` (B, ...): D, by `Answered`."""

    def __init__(
        self,
        model: PipelineModel,
        config: dict[str, Any],
        x: Tensor,
        t: Tensor,
        packing: TokenOrder | None = None,
    ) -> None:
        super().__init__(model, config)
        self._x, self._t, self._packing = x, t, packing
        self.set_timesteps()

    @property
    def init_noise_sigma(self) -> float:
        """States come as they are."""
        return 1.0

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        timesteps: Sequence[float] | Tensor | None = None,
        sigmas: Sequence[float] | Tensor | None = None,
        mu: float | None = None,
    ) -> None:
        """One time, whatever is asked for."""
        t, process = self._t.double(), self._model.process
        self._alpha, self._sigma = process.alpha(t), process.sigma(t)
        relative = process.type != "flow"
        ratio = self._sigma / self._alpha if relative else self._sigma
        self.timesteps = self._times().reshape(-1).to(device)
        self.sigmas = torch.stack([ratio, torch.zeros_like(ratio)]).float()
        self.num_inference_steps = 1
        self._step_index: int | None = None
        self._begin_index = None

    def scale_model_input(self, sample: Tensor, timestep: float | Tensor | None = None) -> Tensor:
        """What the network must see."""
        if self._model.sigma_data is None:
            return sample
        scale = (self._sigma**2 + self._model.sigma_data**2) ** -0.5  # c_in of EDM
        return sample * scale.to(sample)

    def step(
        self,
        model_output: Tensor,
        timestep: float | Tensor,
        sample: Tensor,
        generator: Any = None,
        return_dict: bool = True,
        *,
        eta: float = 0.0,
        use_clipped_model_output: bool | None = None,
        **others: Any,
    ) -> S3SchedulerOutput | tuple[Tensor, ...]:
        """Raises `Answered`."""
        self.asked.samples.append(sample)
        x, f = self._x, model_output[: len(self._x)]  # some pipelines step the guided copies too
        if self._model.learns_variance and f.shape[1] == 2 * x.shape[1]:
            f = f[:, : x.shape[1]]
        f = f if self._packing is None else self._packing.unpacked(f)
        a, b = self._model.weights(self._alpha, self._sigma)
        raise Answered(torch.as_tensor(a).to(x) * x + torch.as_tensor(b).to(x) * f.to(x.dtype))

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """The states themselves: what is noised is in them."""
        return self._x

    def _times(self) -> Tensor:
        if self._t.requires_grad:
            return self._model.timesteps(self._t)
        return self._model.network_times([float(self._t)])


class EndScheduler(PredictionScheduler):
    """No call at all: the pipeline goes on with the states that it was given."""

    def _times(self) -> Tensor:
        return super()._times().reshape(1)[:0]


class LateEndScheduler(PredictionScheduler):
    """`EndScheduler` for pipelines that do not end without a network call: its answer is lost."""

    def step(
        self,
        model_output: Tensor,
        timestep: float | Tensor,
        sample: Tensor,
        generator: Any = None,
        return_dict: bool = True,
        *,
        eta: float = 0.0,
        use_clipped_model_output: bool | None = None,
        **others: Any,
    ) -> S3SchedulerOutput | tuple[Tensor, ...]:
        """The states that were given."""
        x = self._x if self._packing is None else self._packing.packed(self._x)
        x = torch.cat([x] * (len(model_output) // len(x)))
        return S3SchedulerOutput(prev_sample=x) if return_dict else (x,)
