"""Objects of the running program where a study file names loaders: model, extractor, images.

A study file says which functions load what is measured with; a program may have it already.  Such
a study says "live" there, with a label and a fingerprint, and its spec carries the objects.  In
this process they are used as they are; to other processes they travel once, with the factory of
the workers.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from s3search.errors import InvalidConfig
from s3search.evaluation.fingerprints import device_of, modules_of

LIVE = "live"
"""What stands in a study in the place of a loader's name."""

_PROBES = 2  # images


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LiveObjects:
    """What a program brings along; None where a loader is named instead."""

    model: Any = None
    metric: Any = None  # an extractor, or a score of images
    reference: Any = None  # images (N, ...), or an `ImageSource`
    second: Any = None  # of a second metric, which sees the same images at the validation
    guards: tuple[Any, ...] = ()

    @property
    def device(self) -> torch.device | None:
        """Where the model is; None without a model."""
        return None if self.model is None else device_of(self.model)

    @contextmanager
    def borrowed(self) -> Iterator[None]:
        """Modules in evaluation mode and frozen for a while, and then as they were found: mode,
        gradients' flags and device.
        """
        callables = (self.model, self.metric, self.second, *self.guards)
        modules = [module for each in callables for module in modules_of(each)]
        modes = [(each, each.training) for module in modules for each in module.modules()]
        flags = [(own, own.requires_grad) for module in modules for own in module.parameters()]
        places = [(module, _only_device(module)) for module in modules]
        try:
            for module in modules:
                module.eval().requires_grad_(False)
            yield
        finally:
            for module, place in places:
                if place is not None and _only_device(module) != place:
                    module.to(place)
            for each, training in modes:
                each.training = training
            for parameter, flag in flags:
                parameter.requires_grad_(flag)


def only_there(field: str, options: Mapping[str, Any]) -> InvalidConfig:
    """The error of whoever needs an object that only the program had which searched."""
    named = ", ".join(f"{key} {value}" for key, value in options.items())
    return InvalidConfig(
        f"{field}: this study searched a live object ({named}), which is not stored; to go on or "
        "to make images, call s3search.search with it in Python, with the study's storage and "
        "name; status, best, compare, export and report read the database and need no model"
    )


def placed(model: Any, device: torch.device) -> Any:
    """A live model with its modules on ``device``; nothing is moved that is there."""
    for module in modules_of(model):
        if device_of(module) != device:
            module.to(device)
    return model


def check_answer(
    denoiser: Any, noise: Tensor, condition: Mapping[str, Tensor], where: str = "model"
) -> None:
    """Calls a model on two images of noise; raises `InvalidConfig` unless it answers with as
    many.
    """
    t = denoiser.process.time_range[1]
    few = {key: value[:_PROBES] for key, value in condition.items()}
    x = noise[:_PROBES] * float(denoiser.process.sigma(t))
    asked = f"{where}: called with x {tuple(x.shape)} and t ({len(x)},), noise alone, it "
    wanted = "it must return the clean image that it expects behind x, a tensor of its shape"
    try:
        with torch.inference_mode():
            found = denoiser(x, x.new_full((len(x),), t), **few)
    except Exception as error:  # the user's code may raise anything; say where it came from
        kind = type(error).__name__
        raise InvalidConfig(f"{asked}failed with {kind}: {error}; {wanted}") from error
    if not isinstance(found, Tensor):
        raise InvalidConfig(f"{asked}returned a {type(found).__name__}; {wanted}")
    if found.shape != x.shape:
        raise InvalidConfig(f"{asked}returned the shape {tuple(found.shape)}; {wanted}")
    if not bool(torch.isfinite(found).all()):
        raise InvalidConfig(f"{asked}returned numbers that are not finite; {wanted}")


def _only_device(module: nn.Module) -> torch.device | None:
    devices = {tensor.device for tensor in chain(module.parameters(), module.buffers())}
    return devices.pop() if len(devices) == 1 else None
