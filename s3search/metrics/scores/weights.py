"""Files of weights: where they are looked for, and networks that they fill whole."""

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import torch
from torch import Tensor, nn

from s3search.errors import InvalidConfig
from s3search.metrics.extractors.inception import cached_weights


def given_or_cached(
    field: str, given: str | Path | None, url: str, *, download: bool, digest: str | None = None
) -> Path:
    """The file ``given``, or the one behind ``url`` in torch.hub's cache, fetched there only with
    ``download``; raises `InvalidConfig`.  ``digest`` is how its SHA-256 begins.
    """
    path = Path(given) if given is not None else Path(unquote(str(cached_weights(url))))
    if given is None and download and not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), digest, progress=False)
    if not path.is_file():
        raise InvalidConfig(
            f"{field}: there are no weights at {path}; put {url} there, name another place with "
            f"{field}, or set metric.download = true"
        )
    return path


def hub_file(field: str, repository: str, name: str, *, download: bool) -> Path:
    """A file of a hub's repository in the local cache, fetched only with ``download``; raises
    `InvalidConfig`.
    """
    try:
        hub = importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise InvalidConfig(
            f"{field}: {name} of {repository} is looked for in the hub's cache, which needs "
            f"huggingface_hub ({error}); install transformers, or give the file's path"
        ) from error
    try:
        found = hub.hf_hub_download(repository, name, local_files_only=not download)
    except (OSError, ValueError) as error:  # the hub's own errors are among these
        reason = str(error).partition("\n")[0]
        raise InvalidConfig(
            f"{field}: {name} of {repository} is not in the hub's cache ({reason}); give the "
            f"file's path with {field}, or set metric.download = true"
        ) from error
    return Path(found)


def packaged(field: str, places: Sequence[tuple[str, str]]) -> Path:
    """The first file that is there, of those that installed packages bring: (package, file in
    it); raises `InvalidConfig`.  No package is imported.
    """
    for package, inside in places:
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
            if (path := Path(folder) / inside).is_file():
                return path
    asked = " or ".join(f"{inside} of {package}" for package, inside in places)
    raise InvalidConfig(
        f"{field}: {asked} is not here; install it with pip install {places[0][0]}, or give the "
        f"file's path with {field}"
    )


def renamed(name: str, beginnings: Mapping[str, str], inside: Mapping[str, str]) -> str:
    """The name of a weight with the first of ``beginnings`` that fits and all of ``inside``
    replaced.
    """
    for theirs in beginnings:
        if name.startswith(theirs):
            name = beginnings[theirs] + name.removeprefix(theirs)
            break
    for theirs, ours in inside.items():
        name = name.replace(theirs, ours)
    return name


def filled(network: nn.Module, state: Mapping[str, Any], *, field: str, source: str) -> nn.Module:
    """The network with the weights of ``state``, which may hold more; raises `InvalidConfig`
    where some are missing or of another shape.
    """
    wanted = network.state_dict()
    for name, own in wanted.items():
        found = state.get(name)
        if not isinstance(found, Tensor) or found.shape != own.shape:
            shape = tuple(found.shape) if isinstance(found, Tensor) else "nothing"
            raise InvalidConfig(
                f"{field}: {source} does not fill the network: {name} should be of shape "
                f"{tuple(own.shape)}, found {shape}; give the file that docs/scores.md names"
            )
    network.load_state_dict({name: state[name] for name in wanted})
    return network.eval().requires_grad_(False)
