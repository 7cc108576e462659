"""EDM checkpoints (arXiv:2206.00364): safetensors read as data, pickles only on trust.

A pickle of NVlabs carries Python source that its reader executes, so `load` refuses one until
``trust_pickle`` is set.  `convert` takes the weights and settings out of one without executing
anything, for the networks that this package has its own code for.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from s3search.errors import InvalidConfig
from s3search.files import written_through
from s3search.models.checkpoints import (
    CONFIG_KEY,
    Labels,
    Settings,
    checked_choice,
    checked_labels,
    checked_settings,
    dtype_named,
    existing,
    filled,
    merged_settings,
    read_tensors,
    unfilled,
)
from s3search.models.edm import pickles
from s3search.models.edm.denoiser import EdmDenoiser, PickledDenoiser
from s3search.models.edm.pickle_names import names_of_pickle
from s3search.models.edm.unets import DhariwalConfig, EdmConfig, SongConfig

_NETWORKS: dict[str, type[EdmConfig]] = {"SongUNet": SongConfig, "DhariwalUNet": DhariwalConfig}
_PRECONDITIONING = "EDMPrecond"
_NEEDED = ("img_channels", "img_resolution", "label_dim", "sigma_min", "sigma_max")
_FIELD = "model.config"
_NAMED = 6  # functions in a message


def load(
    path: str | Path,
    trust_pickle: bool = False,
    *,
    config: Settings | None = None,
    labels: Labels = "uniform",
    dtype: str = "float32",
) -> EdmDenoiser | PickledDenoiser:
    """The denoiser in a ``.safetensors`` or ``.pt`` file or, if trusted, in NVlabs' pickle.

    ``config`` are the settings of a file that does not carry them.  ``dtype`` is the network's;
    states keep theirs.
    """
    checked_labels(labels)
    number = dtype_named(dtype)
    file = existing(path)
    if file.suffix in (".pkl", ".pickle"):
        if config is not None:
            raise InvalidConfig("model.config: a pickle brings its own network; leave config out")
        return PickledDenoiser(_trusted(file, trust_pickle, number), labels)
    state, stored = read_tensors(file)
    settings = _settings(merged_settings(config, stored, field=_FIELD))
    denoiser = unfilled(lambda: EdmDenoiser(settings, labels), field=_FIELD)
    return filled(denoiser, state, number, file)


def convert(path: str | Path, output: str | Path) -> dict[str, Any]:
    """Writes the weights and settings of NVlabs' pickle as safetensors; runs nothing of it.

    Returns the settings.  Raises `InvalidConfig` for a pickle that does more than hold a network,
    and for networks that this package has no code for.
    """
    file = existing(path)
    record = _network(pickles.read_records(file), file)
    if not isinstance(record, pickles.Record) or record.class_name != _PRECONDITIONING:
        name = getattr(record, "class_name", type(record).__name__)
        raise InvalidConfig(
            f"{file} holds a {name!s:.60}; only {_PRECONDITIONING} around "
            f"{' or '.join(_NETWORKS)} can be converted, other networks of yours load with "
            "trust_pickle = true"
        )
    try:
        inner = getattr(record.state["_modules"].get("model"), "class_name", None)
        arguments, tensors = {**record.arguments, "model_type": inner}, record.tensors()
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise InvalidConfig(
            f"{file} holds a network whose parts are not those of a module "
            f"({type(error).__name__}: {error}); it was changed or damaged"
        ) from error
    settings = _settings(arguments)
    module = unfilled(lambda: EdmDenoiser(settings), field=_FIELD)
    filled(module, tensors, torch.float32, file)
    kept = settings.model_dump(mode="json", exclude_defaults=True)
    kept["model_type"] = settings.model_type
    with written_through(Path(output)) as part:
        save_file(tensors, part, metadata={CONFIG_KEY: json.dumps(kept)})
    return kept


def _settings(found: Mapping[str, Any]) -> EdmConfig:
    kind = str(found.get("model_type", ""))
    checked_choice(f"{_FIELD}.model_type", kind, tuple(_NETWORKS))
    return checked_settings(_NETWORKS[kind], found, field=_FIELD)


def _network(content: Any, file: Path) -> Any:
    found = content.get("ema") if isinstance(content, Mapping) else content
    if found is None:
        keys = ", ".join(map(str, content)) if content else "nothing"
        raise InvalidConfig(f"{file} has no network 'ema'; it holds {keys}")
    return found


def _trusted(file: Path, trust_pickle: bool, dtype: torch.dtype) -> nn.Module:
    if not trust_pickle:
        raise InvalidConfig(_refusal(file))
    net = _network(pickles.run(file), file)
    missing = [name for name in _NEEDED if not hasattr(net, name)]
    if not isinstance(net, nn.Module) or missing:
        lacks = f" without {', '.join(missing)}" if missing else ""
        raise InvalidConfig(
            f"model.path: {file} holds a {type(net).__name__}{lacks}; EDM's networks are modules "
            f"with {', '.join(_NEEDED)}"
        )
    if dtype not in (torch.float32, torch.float16):
        raise InvalidConfig(
            f"model.dtype: a pickled network knows float32 and float16, found {dtype}; convert it "
            "to safetensors for others"
        )
    vars(net)["use_fp16"] = dtype == torch.float16
    return net.eval().requires_grad_(False)


def _refusal(file: Path) -> str:
    """Why a pickle is not loaded, and what would do."""
    found = names_of_pickle(file)
    names, foreign = found.names, pickles.foreign_of(found.names)
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    reason = (
        f"model.path: {file} is a pickle, and reading a pickle runs what is in it. This one calls "
        f"{', '.join(names[:_NAMED]) or 'nothing'}{more}"
    )
    if found.doubt is not None:
        return (
            f"{reason}, and what else cannot be told ({found.doubt}): do not trust it. Nothing "
            "was run"
        )
    if foreign:
        return (
            f"{reason}; no checkpoint of NVlabs needs {', '.join(foreign[:_NAMED])}. Nothing was "
            "run. Only if you trust whoever made the file: trust_pickle = true in [model]"
        )
    return (
        f"{reason}, which executes Python source from the file. Nothing was run. Better: "
        f"`s3search tools checkpoint convert {file} -o {file.stem}.safetensors` takes out the "
        "weights and executes nothing. Or, if you trust whoever made the file: trust_pickle = "
        "true in [model]"
    )
