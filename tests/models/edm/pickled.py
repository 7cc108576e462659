"""Pickles as NVlabs' persistence writes them, made here from the format's description."""

import pickle
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import nn

from s3search.models.edm.denoiser import EdmDenoiser
from s3search.models.edm.unets import EdmConfig

SOURCE = """
import numpy as np
import torch
import dnnlib.util
from torch_utils import persistence
from torch_utils.misc import const_like

@persistence.persistent_class
class Net(torch.nn.Module):
    def __init__(self, label_dim):
        super().__init__()
        self.img_resolution, self.img_channels, self.label_dim = 4, 2, label_dim
        self.sigma_min, self.sigma_max, self.use_fp16 = 0, float("inf"), False
        self.scale = np.sqrt(0.5)
        self.settings = dnnlib.util.EasyDict(depth=1)
        self.shift = torch.nn.Parameter(torch.full([2, 1, 1], 0.25))
        self.table = torch.nn.Parameter(torch.arange(float(max(1, label_dim))))

    def forward(self, x, sigma, class_labels=None):
        sigma = sigma.to(torch.float32).reshape(-1, 1, 1, 1)
        x0 = x / (1 + sigma ** 2) + const_like(x, self.scale) * self.shift * self.settings.depth
        if class_labels is not None:
            x0 = x0 + (class_labels @ self.table).reshape(-1, 1, 1, 1)
        return x0
"""
"""A network of somebody's own, unknown to the package."""


class _Reconstruct:
    """Stands for the function that NVlabs' reader rebuilds a module with."""


class _EasyDict(dict[str, Any]):
    """Stands for NVlabs' dict of settings."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


_NAMES = {
    _Reconstruct: b"torch_utils.persistence\n_reconstruct_persistent_obj\n",
    _EasyDict: b"dnnlib.util\nEasyDict\n",
}


class Persistent:
    """What a module leaves in the pickle: its class's name, its source, its state."""

    def __init__(self, class_name: str, state: Mapping[str, Any], source: str = "") -> None:
        self.meta = {
            "type": "class",
            "version": 6,
            "module_src": source,
            "class_name": class_name,
            "state": dict(state),
        }

    def __reduce__(self) -> Any:
        return _Reconstruct, (self.meta,), None


class _Pickler(pickle._Pickler):
    def save_global(self, obj: Any, name: str | None = None) -> None:
        if obj in _NAMES:
            self.write(pickle.GLOBAL + _NAMES[obj])
        else:
            super().save_global(obj, name)


def dump(path: Path, content: Any) -> Path:
    """``content`` as a pickle."""
    with path.open("wb") as file:
        _Pickler(file, protocol=4).dump(content)
    return path


def foreign_network(label_dim: int = 0) -> tuple[nn.Module, Persistent]:
    """An object of `SOURCE`, and what it leaves in a pickle."""
    persistence = types.ModuleType("torch_utils.persistence")
    vars(persistence)["persistent_class"] = lambda cls: cls
    misc = types.ModuleType("torch_utils.misc")
    vars(misc)["const_like"] = lambda like, value: torch.as_tensor(value).to(like)
    package = types.ModuleType("torch_utils")
    vars(package).update(persistence=persistence, misc=misc)
    util = types.ModuleType("dnnlib.util")
    vars(util)["EasyDict"] = _EasyDict
    dnnlib = types.ModuleType("dnnlib")
    vars(dnnlib)["util"] = util
    modules = {m.__name__: m for m in (persistence, misc, package, util, dnnlib)}
    names: dict[str, Any] = {"__name__": "networks"}
    with patch.dict(sys.modules, modules):
        exec(SOURCE, names)
    net = names["Net"](label_dim)
    return net, Persistent("Net", vars(net), SOURCE)


def own_network(config: EdmConfig) -> tuple[EdmDenoiser, Persistent]:
    """A network that the package has code for, and what NVlabs' pickles hold of it."""
    denoiser = with_weights(EdmDenoiser(config))
    arguments = config.model_dump(exclude_defaults=True) | {"model_type": config.model_type}
    made = _persistent(denoiser, "EDMPrecond")
    made.meta["state"]["_init_kwargs"] = _EasyDict(arguments)
    return denoiser, made


def _persistent(module: nn.Module, name: str = "") -> Any:
    children = {
        key: child if child is None else _persistent(child)
        for key, child in module._modules.items()
    }
    if isinstance(module, nn.ModuleDict):  # torch's own classes are pickled by reference
        shell = nn.ModuleDict()
        vars(shell)["_modules"] = children
        return shell
    kept = ("training", "_parameters", "_buffers", "_non_persistent_buffers_set")
    state = {key: vars(module)[key] for key in kept}
    state |= {"scale": np.sqrt(0.5), "_modules": children}
    source = "raise RuntimeError('nobody runs this')"
    return Persistent(name or type(module).__name__, state, source)


def with_weights(module: Any) -> Any:
    """The module with weights that matter everywhere, the same each time."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator)
    return module.eval().requires_grad_(False)


class RunsCode:
    """Its unpickling creates a file: what a hostile checkpoint could do."""

    def __init__(self, target: Path) -> None:
        self._target = target

    def __reduce__(self) -> Any:
        return exec, (f"open({str(self._target)!r}, 'w').close()",)
