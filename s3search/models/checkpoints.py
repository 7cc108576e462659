"""What every loader of a checkpoint needs: files read as data, settings checked, weights placed.

Nothing here executes what a file says.  Safetensors holds only numbers and text; a ``.pt`` is read
with torch's ``weights_only``, which knows tensors and plain containers and refuses all else.
"""

import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar, get_args

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import safe_open
from torch import Tensor, nn

from s3search.errors import InvalidConfig, nearest
from s3search.files import text_of

CONFIG_KEY = "s3search.config"
"""Key of a safetensors file's metadata under which the network's settings stand, as JSON."""

Labels = Literal["uniform", "none"]
Settings = Mapping[str, Any] | str | Path
ModuleT = TypeVar("ModuleT", bound=nn.Module)
ConfigT = TypeVar("ConfigT", bound=BaseModel)

_DTYPES = {name: getattr(torch, name) for name in ("float32", "float16", "bfloat16", "float64")}
_SHOWN = 3  # names of weights in a message
_LARGEST = 1_000_000  # of a network's settings: channels, pixels, classes
_MOST_ENTRIES = 32  # resolutions, of which each is half the one before

Depth = Annotated[int, Field(gt=0, le=100)]
"""Blocks at one resolution."""


class NetworkConfig(BaseModel):
    """Base of the settings of a network: frozen, unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    @model_validator(mode="after")
    def _sizes_are_a_networks(self) -> Self:
        for name, value in self:
            numbers = value if isinstance(value, tuple) else (value,)
            if len(numbers) > _MOST_ENTRIES:
                raise ValueError(f"{name} has {len(numbers)} entries, more than {_MOST_ENTRIES}")
            for own in numbers:
                is_number = isinstance(own, int | float)
                if is_number and not (abs(own) <= _LARGEST or name in self._may_be_infinite):
                    raise ValueError(f"{name} is {own!s:.20}, which is no size of a network")
        return self

    _may_be_infinite: ClassVar[frozenset[str]] = frozenset()


def existing(path: str | Path, *, field: str = "model.path") -> Path:
    """``path`` if a file is there; raises `InvalidConfig`."""
    found = Path(path)
    if not found.is_file():
        what = "is a folder" if found.is_dir() else "does not exist"
        raise InvalidConfig(
            f"{field}: {str(path)!r} {what}; give the checkpoint's file, as this machine and "
            "the workers see it"
        )
    return found


def checked_choice(field: str, value: str, choices: tuple[str, ...]) -> None:
    """Raises `InvalidConfig` unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise InvalidConfig(f"{field}: {value!r} is not a choice; {nearest(str(value), choices)}")


def dtype_named(name: str) -> torch.dtype:
    """The floating-point type of that name; raises `InvalidConfig`."""
    checked_choice("model.dtype", name, tuple(_DTYPES))
    found: torch.dtype = _DTYPES[name]
    return found


def checked_labels(labels: str) -> None:
    """Raises `InvalidConfig` for anything but the two `Labels`."""
    checked_choice("model.labels", labels, get_args(Labels))


def even_labels(n: int, n_classes: int, generator: torch.Generator) -> Tensor:  # (n,) int64
    """Classes for ``n`` images: each of them equally often, as far as ``n`` is a multiple.

    Counts of classes that vary by chance would show as differences between noise seeds.
    """
    rounds = [torch.randperm(n_classes, generator=generator) for _ in range(-(-n // n_classes))]
    return torch.cat(rounds)[:n]


def read_tensors(
    path: Path, *, field: str = "model.path"
) -> tuple[dict[str, Tensor], Mapping[str, Any] | None]:
    """The weights of a ``.safetensors`` or ``.pt`` file on the CPU, and the settings in it."""
    if path.suffix == ".safetensors":
        return _safetensors(path, field)
    return _state_dict(path, field), None


def _safetensors(path: Path, field: str) -> tuple[dict[str, Tensor], Mapping[str, Any] | None]:
    try:
        with safe_open(path, framework="pt") as file:
            stored = (file.metadata() or {}).get(CONFIG_KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # a damaged file can fail in any way
        raise InvalidConfig(f"{field}: {path} is no safetensors file ({error})") from error
    return tensors, None if stored is None else _json(stored, f"{path}, {CONFIG_KEY}")


def _state_dict(path: Path, field: str) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is wrong with the file is said below
            found = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise InvalidConfig(
            f"{field}: {path} holds more than tensors, and reading the rest would run its "
            f"code; it was not loaded ({_first_line(error)}). Save module.state_dict() "
            "instead, best as safetensors"
        ) from error
    except Exception as error:  # a damaged archive or pickle can fail in any way
        raise InvalidConfig(f"{field}: {path} is no file of torch.save ({error})") from error
    is_state = isinstance(found, dict) and all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in found.items()
    )
    if not is_state:
        raise InvalidConfig(
            f"{field}: {path} holds a {type(found).__name__} that is no state dict (names to "
            "tensors); save module.state_dict()"
        )
    odd = [name for name, tensor in found.items() if not is_plain(tensor)]
    if odd:
        raise InvalidConfig(
            f"{field}: {path} holds no plain numbers for {', '.join(map(repr, odd[:_SHOWN]))} "
            f"({found[odd[0]].layout}, {found[odd[0]].dtype}, on {found[odd[0]].device}); save "
            "the state dict of the module as it was trained, from the CPU"
        )
    return dict(found)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def is_plain(tensor: Tensor) -> bool:
    """Whether a tensor is real numbers in memory: not sparse, quantized, complex, nor without any
    (meta).
    """
    is_dense = tensor.layout is torch.strided and not tensor.is_quantized
    return is_dense and not tensor.is_complex() and tensor.device.type == "cpu"


def merged_settings(
    given: Settings | None, stored: Mapping[str, Any] | None, *, field: str
) -> dict[str, Any]:
    """The settings ``given`` (a table, or a JSON file's path) over those in the checkpoint."""
    if isinstance(given, str | Path):
        try:
            text = text_of(given)
        except InvalidConfig as error:
            raise InvalidConfig(f"{field}: {error}") from error
        given = _json(text, f"{field}: {given}")
    if given is None and stored is None:
        raise InvalidConfig(
            f"{field}: the checkpoint does not say how its network is built; give its settings as "
            f"a table [{field}] or as the path of a JSON file"
        )
    return {**(stored or {}), **(given or {})}


def checked_settings(kind: type[ConfigT], settings: Mapping[str, Any], *, field: str) -> ConfigT:
    """The typed form; raises `InvalidConfig` that names the first key at fault."""
    try:
        return kind.model_validate(settings)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise InvalidConfig(
                f"{field}.{key}: there is no such setting; {nearest(key, kind.model_fields)}"
            ) from error
        if first["type"] == "value_error":
            raise InvalidConfig(f"{field}: {first['ctx']['error']}") from error
        found = "" if first["type"] == "missing" else f", found {first['input']!r}"
        raise InvalidConfig(f"{field}.{key}: {first['msg']}{found}") from error


def _json(text: str, where: str) -> Mapping[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidConfig(f"{where}: not valid JSON ({error})") from error
    if not isinstance(found, dict):
        raise InvalidConfig(f"{where}: expected a JSON object, found {type(found).__name__}")
    return found


def unfilled(make: Callable[[], ModuleT], *, field: str) -> ModuleT:
    """What ``make`` makes, on the meta device: neither time nor random numbers for values that a
    file replaces.

    Raises `InvalidConfig` where the settings at ``field`` make no network.
    """
    try:
        with torch.device("meta"):
            return make()
    except InvalidConfig:
        raise
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise InvalidConfig(
            f"{field}: no network has these settings ({_first_line(error)}); give those the "
            "checkpoint was trained with"
        ) from error


def filled(
    module: ModuleT,
    state: Mapping[str, Tensor],
    dtype: torch.dtype,
    source: str | Path,
    *,
    field: str = "model.path",
) -> ModuleT:
    """``module``, which may be on the meta device, with the weights of ``state``; frozen.

    Raises `InvalidConfig` naming the first weights that are missing, left over or of another
    shape or kind than the settings say.
    """
    wanted = module.state_dict()
    problems = [
        _some("misses", [name for name in wanted if name not in state]),
        _some("has no place for", [name for name in state if name not in wanted]),
        _some(
            "differs in shape at",
            [
                f"{name} (found {tuple(state[name].shape)}, expected {tuple(tensor.shape)})"
                for name, tensor in wanted.items()
                if name in state and state[name].shape != tensor.shape
            ],
        ),
        _some(
            "needs floating-point numbers at",
            [
                f"{name} (found {state[name].dtype})"
                for name in wanted
                if name in state and not state[name].is_floating_point()
            ],
        ),
    ]
    found = "; ".join(problem for problem in problems if problem)
    if found:
        raise InvalidConfig(
            f"{field}: {source} does not fit the network of its settings, which {found}; "
            "compare the settings with those the checkpoint was trained with"
        )
    module.load_state_dict({k: v.to(dtype) for k, v in state.items()}, assign=True)
    return module.eval().requires_grad_(False)


def _some(what: str, names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{what} {', '.join(names[:_SHOWN])}{more}" if names else ""
