"""What a metric sees of images: features of an extractor, or the scores of single images.

Images come in batches with what they are conditioned on.  An extractor looks at the images alone.
A score is a function

    score(images (B, ...), **given) -> (B,)

and is given what it asks for by name: ``captions``, a list of str, where the model tells them;
``target`` (B, ...), where the study has one; and everything that the model's ``condition``
draws under its own name, as ``labels`` (B,) are.
"""

import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from s3search.errors import EvaluationFailed, InvalidConfig
from s3search.evaluation.live import LIVE
from s3search.evaluation.memory import BatchSize
from s3search.evaluation.noise import TARGET
from s3search.evaluation.plugins import FEATURES, SCORES, SCORES_OF_ANY_RANK, call_plugin
from s3search.evaluation.spec import MetricSpec
from s3search.metrics.frames import FrameMean, check_pictures, seeing
from s3search.metrics.samples import Array
from s3search.solvers.shapes import Shape

_LARGEST_BATCH = 1000  # images; callers bring fewer

Condition = Mapping[str, Tensor]
"""What each image is conditioned on (B, ...), by name."""


class View(Protocol):
    """Images (B, ...), pictures in [-1, 1], as numbers (B, d)."""

    @property
    def where(self) -> str:
        """The key of the study file that names it."""

    @property
    def name(self) -> str:
        """That of the extractor or score."""

    @property
    def function(self) -> Any:
        """The user's own."""

    def seen(self, images: Tensor, condition: Condition) -> Array:
        """What counts of each image (B, d), float64, on the CPU."""

    def differentiable(self, images: Tensor, condition: Condition) -> Tensor:
        """What `seen` gives (B, d), on the images' device and with the gradient that there is."""


@dataclass(frozen=True, kw_only=True)
class Extractor:
    """Images (B, ...), pictures in [-1, 1], -> features (B, d)."""

    where: str
    name: str
    function: Callable[[Tensor], Tensor]
    device: torch.device
    fits: BatchSize  # of images at once

    def seen(self, images: Tensor, condition: Condition | None = None) -> Array:
        """Features (B, d) in float64, on the CPU."""
        found: Array = self.fits.over(self._of_portion, images, {}).double().cpu().numpy()
        return found

    def differentiable(self, images: Tensor, condition: Condition) -> Tensor:
        """Features (B, d)."""
        return self.function(images)

    @torch.inference_mode()
    def _of_portion(self, images: Tensor, _: Condition) -> Tensor:
        features = self.function(images.to(self.device))
        is_tensor = isinstance(features, Tensor)
        if not is_tensor or features.ndim != 2 or len(features) != len(images):
            shape = f"shape {tuple(features.shape)}" if is_tensor else type(features).__name__
            raise InvalidConfig(
                f"{self.where}: expected (B, d) features for {len(images)} images, and "
                f"{self.name!r} returned {shape}"
            )
        return features

    def seen_in_batches(self, images: Tensor, batch_size: int) -> Array:
        """Features (n, d) float64, on the CPU, of images that do not fit on the device at once."""
        parts = [torch.as_tensor(self.seen(batch)) for batch in torch.split(images, batch_size)]
        found: Array = torch.cat(parts).numpy()
        return found


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """Images and what they were made for -> scores (B, 1), or (B, 2) with a number for the
    caption, which is equal for equal ones.
    """

    where: str
    name: str
    function: Callable[..., Tensor]
    device: torch.device
    fits: BatchSize  # of images at once
    captions: Callable[..., Sequence[str]] | None = None  # of the model, by its condition

    def seen(self, images: Tensor, condition: Condition) -> Array:
        """Scores (B, 1) or (B, 2) in float64, on the CPU; raises `InvalidConfig` for another
        shape, `EvaluationFailed` where one is not finite.
        """
        scores = self.fits.over(self._of_portion, images, condition).double().cpu()
        if not torch.isfinite(scores).all():
            raise EvaluationFailed(f"{self.where}: {self.name!r} gave scores that are not finite")
        columns = [scores[:, None]]
        if self.captions is not None:
            numbers = [_number(caption) for caption in self._captions(condition)]
            columns.append(torch.tensor(numbers, dtype=torch.float64)[:, None])
        found: Array = torch.cat(columns, dim=1).numpy()
        return found

    def differentiable(self, images: Tensor, condition: Condition) -> Tensor:
        """Scores (B, 1)."""
        return self._called(images, condition)[:, None]

    @torch.inference_mode()
    def _of_portion(self, images: Tensor, condition: Condition) -> Tensor:
        own = {key: value.to(self.device) for key, value in condition.items()}
        return self._called(images.to(self.device), own)

    def _called(self, images: Tensor, condition: Condition) -> Tensor:
        scores = self.function(images, **self.given(condition))
        is_tensor = isinstance(scores, Tensor)
        if not is_tensor or tuple(scores.shape) != (len(images),):
            shape = f"shape {tuple(scores.shape)}" if is_tensor else type(scores).__name__
            raise InvalidConfig(
                f"{self.where}: expected a tensor ({len(images)},), one score for each image, and "
                f"{self.name!r} returned {shape}"
            )
        return scores

    def given(self, condition: Condition) -> dict[str, Any]:
        """What the score is called with beside images; raises `InvalidConfig` where it asks for
        more than there is.
        """
        known: dict[str, Any] = dict(condition)
        if self.captions is not None:
            known["captions"] = self._captions(condition)
        wanted, takes_any = _parameters(self.function)
        needed = {name for name, is_needed in wanted.items() if is_needed}
        missing = sorted((needed | set(getattr(self.function, "needs", ()))) - known.keys())
        if missing:
            raise InvalidConfig(
                f"{self.where}: {self.name!r} needs {', '.join(missing)}, and here there is "
                f"{', '.join(sorted(known)) or 'nothing beside the images'}; captions come from a "
                "model with a method captions(**condition), a target from target = 'fine' or "
                "'given', everything else from the model's condition()"
            )
        return {name: value for name, value in known.items() if takes_any or name in wanted}

    def _captions(self, condition: Condition) -> list[str]:
        assert self.captions is not None
        return list(self.captions(**{k: v for k, v in condition.items() if k != TARGET}))


def load_view(
    spec: MetricSpec,
    device: torch.device,
    live: Any = None,
    captions: Callable[..., Sequence[str]] | None = None,
    shape: Shape | None = None,
) -> Extractor | Scorer:
    """The extractor or score that a study names, or the ``live`` one, for images of this
    ``shape``, where that is known; raises `InvalidConfig`.
    """
    known = SCORES if spec.is_score else FEATURES
    if shape is not None and spec.name in known and spec.name not in SCORES_OF_ANY_RANK:
        check_pictures(spec.name, shape, key=spec.key)  # before weights are looked for
    function = call_plugin(spec.key, spec.name, spec.options, known, live)
    what = "(images, **given) -> numbers (B,)" if spec.is_score else "images -> features"
    if not callable(function):
        raise InvalidConfig(
            f"{spec.key}: {spec.name!r} returned a {type(function).__name__}, not a callable "
            f"{what}"
        )
    if isinstance(function, torch.nn.Module):
        function = function.to(device)
    own = spec.options["object"] if spec.name == LIVE else getattr(function, "name", spec.name)
    natural = getattr(function, "direction", spec.direction.value)
    if shape is not None:
        function, own = seeing(function, own, shape, frames=spec.frames, key=spec.key)
    given = {"where": spec.key, "name": own, "function": function, "device": device}
    if spec.is_score:
        if natural != spec.direction.value:
            raise InvalidConfig(
                f"{spec.where}.direction: {own!r} is to be {natural}d, and the study says "
                f"{spec.direction.value!r}; set direction = {natural!r}"
            )
        fits = BatchSize(_LARGEST_BATCH, "scoring images")
        return Scorer(**given, fits=fits, captions=captions)
    return Extractor(**given, fits=BatchSize(_LARGEST_BATCH, "extracting features"))


def _parameters(function: Any) -> tuple[dict[str, bool], bool]:
    """What a score may be given by name, and whether it must be; whether it takes any."""
    own = function.pictures if isinstance(function, FrameMean) else function
    called = own.forward if isinstance(own, torch.nn.Module) else own
    try:
        _, *others = inspect.signature(called).parameters.values()
    except (TypeError, ValueError):
        return {}, True
    takes_any = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in others)
    several = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    empty = inspect.Parameter.empty
    named = [each for each in others if each.kind not in several]
    return {each.name: each.default is empty for each in named}, takes_any


def _number(caption: str) -> float:
    """A whole number below 2^52 for a caption."""
    return float(int(hashlib.sha256(caption.encode()).hexdigest()[:13], 16))
