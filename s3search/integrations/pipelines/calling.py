"""One call of a pipeline with a scheduler of ours, and the pipeline as it was afterwards."""

import inspect
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from s3search.integrations.pipelines.draws import GivenDraws
from s3search.integrations.pipelines.outputs import tensor_of
from s3search.integrations.pipelines.scheduler import Driven

_ENCODES = "encode_prompt"
_KEPT_PROMPTS = 256  # calls of it
_PLAIN = (str, int, float, bool, torch.device, torch.dtype, type(None))


@dataclass(slots=True, eq=False)
class NoiseEntry:
    """How noise gets into a pipeline's call: as ``latents``, or as a draw of a certain number."""

    takes_latents: bool = True
    place: int | None = None  # of the draw


@dataclass(slots=True, eq=False)
class Caller:
    """A pipeline and the arguments of all its calls."""

    pipe: Any
    arguments: Mapping[str, Any]
    output_type: str | None = None
    entry: NoiseEntry = field(default_factory=NoiseEntry)
    _encoded: OrderedDict[str, Any] = field(default_factory=OrderedDict)

    @property
    def parameters(self) -> Sequence[str]:
        """Those of the pipeline's call."""
        return call_parameters(self.pipe)

    def __call__(
        self,
        scheduler: Driven,
        given: Mapping[str, Any],
        noise: Tensor,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """What the pipeline makes (B, ...) with this scheduler of ``noise`` (B, ...), the states
        that its call begins with; ``given`` are arguments of this call alone.
        """
        draws, own = GivenDraws(noise, self.entry.place), self._own(scheduler)
        if self.entry.takes_latents:
            own["latents"] = noise if dtype is None else noise.to(dtype)
        call = type(self.pipe).__call__
        if torch.is_grad_enabled():
            call = inspect.unwrap(call)  # from no_grad
        with self._driven_by(scheduler), draws:
            output = call(self.pipe, **self.arguments, **given, **own)
        return tensor_of(output, self.pipe, self.output_type)

    def drawing(
        self, scheduler: Driven, given: Mapping[str, Any], noise: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """What the pipeline makes of noise that it draws itself, and all draws."""
        draws = GivenDraws(noise)
        with self._driven_by(scheduler), draws:
            output = self.pipe(**self.arguments, **given, **self._own(scheduler))
        return tensor_of(output, self.pipe, self.output_type), draws.made

    def _own(self, scheduler: Driven) -> dict[str, Any]:
        """The arguments that follow from the schedule, and how the output is asked for."""
        own: dict[str, Any] = {"num_inference_steps": scheduler.num_inference_steps}
        if self.output_type is not None and "output_type" in self.parameters:
            own["output_type"] = self.output_type
        return own

    @contextmanager
    def _driven_by(self, scheduler: Driven) -> Iterator[None]:
        """The pipeline with ``scheduler``, silent, and with prompts encoded once."""
        pipe = self.pipe
        before, shown = pipe.scheduler, getattr(pipe, "_progress_bar_config", None)
        with ExitStack() as stack:
            stack.callback(setattr, pipe, "scheduler", before)
            pipe.scheduler = scheduler
            if hasattr(pipe, "set_progress_bar_config"):
                stack.callback(setattr, pipe, "_progress_bar_config", shown or {})
                pipe.set_progress_bar_config(disable=True)
            encode = getattr(pipe, _ENCODES, None)
            if encode is not None and _ENCODES not in vars(pipe):
                stack.callback(vars(pipe).pop, _ENCODES)
                vars(pipe)[_ENCODES] = self._remembering(encode)
            yield

    def _remembering(self, encode: Callable[..., Any]) -> Callable[..., Any]:
        """``encode_prompt`` that is asked once for the same texts."""

        def encoded(*args: Any, **kwargs: Any) -> Any:
            if not all(map(_is_plain, [*args, *kwargs.values()])):
                return encode(*args, **kwargs)
            key = repr((args, sorted(kwargs.items())))
            if key not in self._encoded:
                # the polish needs tensors that autograd takes
                with torch.inference_mode(False), torch.no_grad():
                    self._encoded[key] = encode(*args, **kwargs)
                while len(self._encoded) > _KEPT_PROMPTS:
                    self._encoded.popitem(last=False)
            return self._encoded[key]

        return encoded


def call_parameters(pipe: Any) -> list[str]:
    """The names that a pipeline's call takes."""
    return [*inspect.signature(type(pipe).__call__).parameters][1:]


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return isinstance(value, _PLAIN)
