"""What tells two objects of a program apart: their weights, and the numbers and texts they hold.

A study keeps no object, so it keeps a hash of it.  A `torch.nn.Module` is known by its parameters
and buffers, and by its own attributes that are numbers or texts (a guidance scale).  Of any other
callable all of these count that it reaches: through attributes, closures, what a `partial` or a
bound method holds, and the global names that its function uses.  The code itself is not hashed: a
model that was edited keeps its fingerprint, and asks for another name of its study.
"""

import functools
import hashlib
import types
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

DIGITS = 16  # hexadecimal ones of every fingerprint and digest
_PLAIN = (int, float, str)
_LEAVES = (*_PLAIN, Tensor, nn.Module, np.ndarray)


def fingerprint_of(thing: Any, *more: object) -> str:
    """16 hexadecimal digits for an object's name, what it holds (see the module), and ``more``."""
    digest = hashlib.sha256(f"{label_of(thing)}{more}".encode())
    for path, part in sorted(_held(thing), key=lambda each: each[0]):
        digest.update(path.encode())
        match part:
            case nn.Module():
                add_weights(digest, part)
            case Tensor() | np.ndarray():
                _add_numbers(digest, torch.as_tensor(part))
            case _:
                digest.update(repr(part).encode())
    return digest.hexdigest()[:DIGITS]


def content_digest(images: Tensor) -> str:
    """16 hexadecimal digits for the numbers of a tensor, their type and its shape."""
    digest = hashlib.sha256(f"{images.dtype}{tuple(images.shape)}".encode())
    _add_numbers(digest, images)
    return digest.hexdigest()[:DIGITS]


def add_weights(digest: Any, module: nn.Module) -> None:
    """Puts a module's parameters and buffers, with their names, into a hash."""
    for name, tensor in sorted(module.state_dict().items()):
        if isinstance(tensor, Tensor):  # modules may add what they like
            digest.update(name.encode())
            _add_numbers(digest, tensor)


def label_of(thing: Any) -> str:
    """What a person calls an object: its own ``name``, else that of its function or class."""
    own = getattr(thing, "name", None)
    if isinstance(own, str) and own:
        return own
    if isinstance(thing, functools.partial):
        return label_of(thing.func)
    if isinstance(thing, types.MethodType):
        return f"{label_of(thing.__self__)}.{thing.__name__}"
    return str(getattr(thing, "__name__", None) or type(thing).__name__)


def modules_of(thing: Any) -> list[nn.Module]:
    """The outermost modules that an object is or holds."""
    found = (part for _, part in _held(thing))
    return [part for part in found if isinstance(part, nn.Module)]


def device_of(thing: Any) -> torch.device:
    """Where an object computes: its own ``device``, else that of the first tensor it holds."""
    own = getattr(thing, "device", None)
    if isinstance(own, str | torch.device):
        return torch.device(own)
    for _, part in _held(thing):
        tensors = [part] if isinstance(part, Tensor) else []
        if isinstance(part, nn.Module):
            tensors = [*part.parameters(), *part.buffers()]
        if tensors:
            return tensors[0].device
    return torch.device("cpu")


def _held(thing: Any) -> Iterator[tuple[str, Any]]:
    """The modules, tensors, numbers and texts that an object reaches, each with its path."""
    waiting = deque([("", thing)])
    seen: set[int] = set()
    while waiting:
        path, each = waiting.popleft()
        if isinstance(each, _LEAVES):
            yield path, each
        if isinstance(each, _PLAIN) or id(each) in seen:
            continue
        seen.add(id(each))
        waiting.extend((f"{path}.{name}", own) for name, own in _inside(each))


def _inside(thing: Any) -> Iterator[tuple[str, Any]]:
    match thing:
        case nn.Module():
            yield from _plain_attributes(thing)
        case types.FunctionType():
            yield from _of_function(thing)
        case types.MethodType():
            yield "self", thing.__self__
        case functools.partial():
            yield from (("function", thing.func), ("args", thing.args), ("keys", thing.keywords))
        case Mapping():
            yield from ((str(key), value) for key, value in thing.items())
        case list() | tuple():
            yield from ((str(i), value) for i, value in enumerate(thing))
        case Tensor() | np.ndarray() | type() | types.ModuleType():
            return
        case _:
            yield from _attributes(thing).items()


def _plain_attributes(module: nn.Module) -> Iterator[tuple[str, Any]]:
    for name, value in vars(module).items():
        if not name.startswith("_") and name != "training" and isinstance(value, _PLAIN):
            yield name, value


def _attributes(thing: Any) -> dict[str, Any]:
    slots = {name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())}
    slotted = {name: getattr(thing, name) for name in slots if hasattr(thing, name)}
    return {**slotted, **getattr(thing, "__dict__", {})}


def _of_function(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """What a function holds itself, and of its module's names those that are no library's."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # not yet bound
            continue
    yield "defaults", function.__defaults__ or ()
    yield "keyword defaults", function.__kwdefaults__ or {}
    for name in function.__code__.co_names:
        value = function.__globals__.get(name)
        is_own = isinstance(value, types.FunctionType) and value.__module__ == function.__module__
        if is_own or isinstance(value, _LEAVES):
            yield name, value


def _add_numbers(digest: Any, tensor: Tensor) -> None:
    flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    digest.update(flat.numpy().data)
