"""A pipeline as a model: whole runs for images, single calls for everything else.

Images are what the pipeline's own call makes with the schedule in the place of its scheduler, so
whatever it does before, between and after its network calls is in them, and running a found
schedule in it makes the same.  A prediction D(x, t), which statistics and gradients ask for, is a
call that is left after its first network call.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from s3search.errors import EvaluationFailed
from s3search.integrations.pipelines.calling import Caller
from s3search.integrations.pipelines.conditions import ArgumentSource
from s3search.integrations.pipelines.dry_run import Facts
from s3search.integrations.pipelines.networks import modules_in
from s3search.integrations.pipelines.scheduler import (
    Answered,
    PlanScheduler,
    PredictionScheduler,
)
from s3search.models.diffusers.scheduler_config import OwnSampler, PipelineModel
from s3search.solvers.plan import Plan
from s3search.solvers.step_noise import Draws


class CalledPipeline(nn.Module):
    """Images of plans by a pipeline's own call; made by `s3search.integrations.pipelines`."""

    def __init__(
        self,
        caller: Caller,
        source: ArgumentSource,
        model: PipelineModel,
        facts: Facts,
        own_sampler: OwnSampler | None,
    ) -> None:
        super().__init__()
        pipe = caller.pipe
        self.parts = nn.ModuleDict(modules_in(pipe))
        self.pipeline = type(pipe).__name__
        self.process = model.process
        self.sample_shape, self.image_shape = facts.sample_shape, facts.image_shape
        self.own_sampler = own_sampler
        self.network_batches_per_call = facts.batches_per_call
        self._caller, self._source, self._model, self._facts = caller, source, model, facts
        # what is no parameter but decides the images; with the parameters it is fingerprinted
        self.register_buffer("digest", _digest(caller, source, model, facts))

    def condition(
        self, n: int, generator: torch.Generator, held_out: bool = False
    ) -> dict[str, Tensor]:
        """What ``n`` images are conditioned on; prompts of the search, or the held-out ones."""
        return self._source.condition(n, generator, held_out=held_out)

    @property
    def captions(self) -> Callable[..., list[str]] | None:
        """From a condition to the texts that images were asked for by; None without prompts."""
        return self._source.texts

    @torch.no_grad()
    def images_of_plan(
        self, plan: Plan, noise: Tensor, draws: Draws, condition: Mapping[str, Tensor]
    ) -> Tensor:
        """The images (B, ...) that a whole run of the pipeline makes of ``noise`` (B, ...)."""
        made = []
        for part in self._parts_of(len(noise)):
            own = PlanScheduler(
                self._model, self._config, plan, self._some_of(draws, part, len(noise))
            )
            made.append(self._call(own, noise[part], condition, part))
        return torch.cat(made).to(noise.dtype)

    def forward(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        """The clean state expected behind ``x``; one call for each time among ``t`` (B,)."""
        if torch.is_grad_enabled() and self._facts.apart is not None:
            raise EvaluationFailed(
                f"{self._facts.apart}, so its single calls have no gradient of a whole run"
            )
        found: list[Tensor] = list(x.unbind())
        for time in torch.unique(t.detach()):
            among = (t == time).nonzero()[:, 0]
            for part in self._parts_of(len(among)):
                own = among[part]
                answers = self._predicted(x[own], t[own[0]], condition, own)
                for i, answer in zip(own.tolist(), answers, strict=True):
                    found[i] = answer
        return torch.stack(found)

    @property
    def decode(self) -> Callable[[Tensor], Tensor]:
        """What the pipeline makes of its last states (B, ...)."""
        return self._decoded

    @property
    def _config(self) -> dict[str, Any]:
        return dict(self._caller.pipe.scheduler.config)

    def _some_of(self, draws: Draws, part: slice, n: int) -> Draws:
        """What some of ``n`` images draw, as states have it."""
        packing = self._facts.packing

        def draw(row: int, like: Tensor) -> Tensor:
            shape = like.shape[1:] if packing is None else packing.noise_shape
            own = draws(row, like.new_empty((n, *shape)))[part]
            own = own if packing is None else packing.packed(own)
            return torch.cat([own] * (len(like) // len(own)))  # guided copies draw alike

        return draw

    def _parts_of(self, n: int) -> list[slice]:
        """Images that go through one call."""
        size = self._facts.at_once or max(n, 1)
        return [slice(first, min(first + size, n)) for first in range(0, n, size)]

    def _call(
        self, scheduler: Any, x: Tensor, condition: Mapping[str, Tensor], which: Any
    ) -> Tensor:
        given = self._source.given({k: v[which] for k, v in condition.items()}, len(x))
        return self._caller(scheduler, given, x, self._facts.dtype)

    def _predicted(
        self, x: Tensor, t: Tensor, condition: Mapping[str, Tensor], which: Tensor
    ) -> Tensor:
        scheduler = PredictionScheduler(self._model, self._config, x, t, self._facts.packing)
        try:
            self._call(scheduler, x, condition, which)
        except Answered as answered:
            return answered.prediction
        raise EvaluationFailed(f"{self.pipeline} makes no network call for a single step")

    def _decoded(self, states: Tensor) -> Tensor:
        if self._facts.end is None:
            raise EvaluationFailed(
                f"{self.pipeline} makes no images of states that another loop made; what follows "
                "single calls (a polish) cannot be had"
            )
        t = states.new_tensor(self.process.time_range[1], dtype=torch.float64)
        generator, made = torch.Generator().manual_seed(0), []
        for part in self._parts_of(len(states)):
            own = states[part]
            scheduler = self._facts.end(self._model, self._config, own, t, self._facts.packing)
            drawn = self._source.condition(len(own), generator, held_out=False)
            given, dtype = self._source.given(drawn, len(own)), self._facts.dtype
            made.append(self._caller(scheduler, given, own, dtype))
        return torch.cat(made).to(states.dtype)


def _digest(caller: Caller, source: ArgumentSource, model: PipelineModel, facts: Facts) -> Tensor:
    """A hash (32,) of all but the parameters that decides the images."""
    arguments = [(key, _content(value)) for key, value in sorted(caller.arguments.items())]
    kind = type(caller.pipe).__name__
    content = [kind, repr(model), arguments, facts.sample_shape, source.content]
    digest = hashlib.sha256(json.dumps([*content, caller.output_type]).encode()).digest()
    return torch.tensor(list(digest), dtype=torch.uint8)


def _content(value: Any) -> str:
    """A text that is the same for equal arguments."""
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    if hasattr(value, "tobytes"):  # an array, or a picture
        return hashlib.sha256(value.tobytes()).hexdigest()
    if isinstance(value, list | tuple):
        return str([_content(each) for each in value])
    return repr(value)
