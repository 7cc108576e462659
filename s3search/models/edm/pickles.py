"""NVlabs' network pickles: what they would run, their weights without running it, and running it.

A pickle is a program.  Those of NVlabs (EDM, StyleGAN and their kin) hold, for each module, a call
of ``torch_utils.persistence._reconstruct_persistent_obj`` with one dict

    {type: "class", version: 6, module_src: Python source, class_name: ..., state: ...}

whose source the original reader executes.  Three ways to look at one:

- `s3search.models.edm.pickle_names` lists the functions and classes it would call, as far as that
  can be told, and calls none;
- `read_records` calls only what makes tensors and containers, from a fixed list: sources stay text
  and each module becomes a `Record` of its class's name and its state;
- `run` executes the sources.  It needs neither NVlabs' code nor an installed package: what those
  sources import from it is a stand-in, seen by them alone.
"""

import builtins
import io
import pickle
import types
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from s3search.errors import InvalidConfig
from s3search.models.checkpoints import is_plain

_VERSION = 6
_REBUILD = ("torch_utils.persistence", "_reconstruct_persistent_obj")


@dataclass(frozen=True, slots=True)
class Record:
    """A pickled module whose source was not run."""

    class_name: str
    state: Mapping[str, Any]

    @property
    def arguments(self) -> dict[str, Any]:
        """The keyword arguments that the module was made with."""
        return dict(self.state.get("_init_kwargs") or {})

    def tensors(self) -> dict[str, Tensor]:
        """The state dict of the network, by names."""
        return {name: _plain(name, t).contiguous() for name, t in _tensors(self.state)}


def _plain(name: str, tensor: Any) -> Tensor:
    if not isinstance(tensor, Tensor) or not is_plain(tensor):
        raise TypeError(f"{name} is no tensor of real numbers")
    return tensor


def _tensors(state: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    kept = {**state["_parameters"], **state["_buffers"]}
    for name in state.get("_non_persistent_buffers_set", ()):
        kept.pop(name, None)
    yield from ((prefix + name, t) for name, t in kept.items() if t is not None)
    for name, module in state["_modules"].items():
        if module is not None:
            yield from _tensors(module.state, f"{prefix}{name}.")


# --- its weights, without running it ---


class _Inert:
    """Stands for a class whose objects are only looked through."""

    state: Mapping[str, Any]

    def __init__(self, *_: Any) -> None:
        self.state = {}

    def __setstate__(self, state: Any) -> None:
        self.state = state if isinstance(state, Mapping) else {}


def _record(meta: Mapping[str, Any]) -> Record:
    return Record(str(meta["class_name"]), meta["state"])


def _rebuild_parameter(data: Tensor, *_: Any) -> Tensor:
    return data


def _storage(data: bytes) -> Any:
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _nothing(*_: Any) -> None:
    """In the place of numpy's constructor of scalars: no weight is one."""


_HARMLESS: dict[tuple[str, str], Callable[..., Any]] = {
    _REBUILD: _record,
    ("dnnlib.util", "EasyDict"): dict,
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "set"): set,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch.storage", "_load_from_bytes"): _storage,
    ("torch.nn.modules.container", "ModuleDict"): _Inert,
    ("torch.nn.modules.container", "ModuleList"): _Inert,
    ("torch.nn.modules.container", "Sequential"): _Inert,
    ("numpy", "dtype"): _Inert,
    ("numpy.core.multiarray", "scalar"): _nothing,
    ("numpy._core.multiarray", "scalar"): _nothing,
}


def foreign_of(names: Iterable[str]) -> tuple[str, ...]:
    """Those of a pickle's names that `read_records` would refuse."""
    harmless = {".".join(name) for name in _HARMLESS}
    return tuple(name for name in names if name not in harmless)


class _RecordReader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        found = _HARMLESS.get((module, name))
        if found is None:
            raise pickle.UnpicklingError(f"it calls {module}.{name}")
        return found


def read_records(path: Path) -> Any:
    """The pickle's content with `Record`s for modules; runs nothing of the file.

    Raises `InvalidConfig` where it calls anything beyond what builds tensors and containers.
    """
    return _read(_RecordReader, path, "cannot be read without running it")


# --- running it ---


class _EasyDict(dict[str, Any]):
    """A dict whose keys are attributes too."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value


def _same(value: Any) -> Any:
    return value


def _constant(value: Any, *, dtype: Any = None, device: Any = None, **_: Any) -> Tensor:
    return torch.as_tensor(value, dtype=dtype, device=device)


def _const_like(like: Tensor, value: Any) -> Tensor:
    return _constant(value, dtype=like.dtype, device=like.device)


def _module(name: str, **content: Any) -> types.ModuleType:
    module = types.ModuleType(name)
    vars(module).update(content)
    return module


_PERSISTENCE = _module(
    "torch_utils.persistence",
    persistent_class=_same,  # it makes objects remember their source, for pickling them again
    import_hook=_same,
    is_persistent=lambda _: False,
)
_MISC = _module("torch_utils.misc", constant=_constant, const_like=_const_like)
_UTIL = _module("dnnlib.util", EasyDict=_EasyDict)
_STAND_INS = {
    module.__name__: module
    for module in (
        _PERSISTENCE,
        _MISC,
        _UTIL,
        _module("torch_utils", persistence=_PERSISTENCE, misc=_MISC),
        _module("dnnlib", util=_UTIL, EasyDict=_EasyDict),
    )
}


def _import(name: str, *rest: Any) -> Any:
    """``__import__`` as the pickled sources see it."""
    stand_in = _STAND_INS.get(name)
    if stand_in is None:
        return builtins.__import__(name, *rest)
    is_from = len(rest) > 2 and rest[2]
    return stand_in if is_from else _STAND_INS[name.partition(".")[0]]


class _Runner(pickle.Unpickler):
    def __init__(self, file: Any) -> None:
        super().__init__(file)
        self._sources: dict[str, dict[str, Any]] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == _REBUILD:
            return self._rebuild
        if module == "torch.storage" and name == "_load_from_bytes":
            return lambda data: torch.load(
                io.BytesIO(data), map_location="cpu", weights_only=False
            )
        if module in _STAND_INS:
            return getattr(_STAND_INS[module], name)
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)

    def _rebuild(self, meta: Mapping[str, Any]) -> Any:
        if meta["type"] != "class" or meta["version"] != _VERSION:
            found = f"{meta['type']!r}, version {meta['version']}"
            raise ValueError(f"a persistent object is 'class', version {_VERSION}; found {found}")
        cls = self._names(meta["module_src"])[meta["class_name"]]
        made = cls.__new__(cls)
        if isinstance(made, nn.Module):
            made.__setstate__(meta["state"])  # type: ignore[no-untyped-call]  # torch leaves it so
        else:
            vars(made).update(meta["state"])
        return made

    def _names(self, source: str) -> dict[str, Any]:
        if source not in self._sources:
            names = {
                "__name__": f"pickled_source_{len(self._sources)}",
                "__builtins__": {**vars(builtins), "__import__": _import},
            }
            exec(compile(source, f"<{names['__name__']}>", "exec"), names)
            self._sources[source] = names
        return self._sources[source]


def run(path: Path) -> Any:
    """The pickle's content, its sources EXECUTED: only for files that are trusted."""
    return _read(_Runner, path, "failed while it ran")


def _read(reader: type[pickle.Unpickler], path: Path, what: str) -> Any:
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of the protocols of tensors within
            return reader(file).load()
    except Exception as error:  # a pickle can fail in any way
        kind = type(error).__name__
        raise InvalidConfig(f"{path} {what} ({kind}: {error})") from error
