"""Models, extractors, scores and references by name or by import path.

A study file's ``loader``, ``features``, ``score`` and ``images`` name a function: a short name
from the tables below, or ``"package.module:function"``.  It is called with the table's remaining
keys.  A study of objects that the program had says "live" there (`s3search.evaluation.live`).

Modules are looked for where Python looks, then in the study's folders (`importable_from`): last,
so that a file beside a study file never stands in for a library's.
"""

import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from s3search.errors import InvalidConfig, S3SearchError, nearest
from s3search.evaluation.live import LIVE, only_there
from s3search.models.importing import imported

MODELS = {
    "digits": "s3search.models.digits:load",
    "edm": "s3search.models.edm:load",
    "guided_diffusion": "s3search.models.guided_diffusion:load",
    "diffusers": "s3search.models.diffusers:load",
    "pipeline": "s3search.integrations.pipelines:load",
}
FEATURES = {
    "digits": "s3search.models.digits:features",
    "inception": "s3search.metrics.extractors.inception:load",
    "dinov2": "s3search.metrics.extractors.dinov2:load",
    "clip": "s3search.metrics.extractors.clip:load",
}
SCORES = {
    "clip": "s3search.metrics.scores.clip:load",
    "pickscore": "s3search.metrics.scores.pickscore:load",
    "hpsv2.1": "s3search.metrics.scores.hpsv2:load",
    "imagereward": "s3search.metrics.scores.imagereward:load",
    "aesthetic": "s3search.metrics.scores.aesthetic:load",
    "mse": "s3search.metrics.scores.pixels:load_mse",
    "psnr": "s3search.metrics.scores.pixels:load_psnr",
    "ssim": "s3search.metrics.scores.ssim:load",
    "lpips": "s3search.metrics.scores.lpips:load",
    "dists": "s3search.metrics.scores.dists:load",
}
SCORES_OF_ANY_RANK = ("mse",)  # the others see pictures
MINIMIZED_SCORES = ("mse", "lpips", "dists")  # unless a study says otherwise
REFERENCES = {
    "digits": "s3search.models.digits:images",
    "folder": "s3search.metrics.references.folder:load",
    "dataset": "s3search.metrics.references.dataset:load",
    "npz": "s3search.metrics.references.npz:load",
}


def call_plugin(
    field: str, name: str, options: Mapping[str, Any], known: Mapping[str, str], live: Any = None
) -> Any:
    """What the function behind ``name`` returns for ``options``, or the ``live`` object that
    stands in its place; raises `InvalidConfig` naming ``field``.
    """
    if name == LIVE:
        if live is None:
            raise only_there(field, options)
        return live
    function = _function(field, name, known)
    _check_options(field, name, function, options)
    try:
        return function(**options)
    except S3SearchError:
        raise
    except Exception as error:  # the user's code may raise anything; say where it came from
        kind = type(error).__name__
        raise InvalidConfig(f"{field}: {name!r} failed with {kind}: {error}") from error


def importable_from(folders: Sequence[str], names: Iterable[str] = ()) -> None:
    """Puts the folders that are here at the end of the import path.

    Raises `InvalidConfig` where one of them has a module of ``names``, import paths, and Python
    would take another of that name.
    """
    here = [folder for folder in folders if Path(folder).is_dir()]
    sys.path.extend(folder for folder in here if folder not in sys.path)
    for name in names:
        module = name.partition(":")[0].partition(".")[0]
        own = PathFinder.find_spec(module, here) if ":" in name else None
        if own is None or own.origin is None or module == "__main__":
            continue
        taken = importlib.util.find_spec(module)
        if taken is not None and taken.origin not in (own.origin, None):
            raise InvalidConfig(
                f"{name}: the study's folder has {own.origin}, and Python would take "
                f"{taken.origin}; give your module another name, or, where an earlier study of "
                "this process imported that one, search in a new process"
            )


def parameters_of(field: str, name: str, known: Mapping[str, str]) -> list[str] | None:
    """What the function behind ``name`` may be given, None where nobody knows; raises
    `InvalidConfig` where there is no such function.
    """
    try:
        signature = inspect.signature(_function(field, name, known))
    except (TypeError, ValueError):
        return None
    kinds = {own.kind for own in signature.parameters.values()}
    takes_any = inspect.Parameter.VAR_KEYWORD in kinds
    return None if takes_any else list(signature.parameters)


def _function(field: str, name: str, known: Mapping[str, str]) -> Callable[..., Any]:
    path = known.get(name, name)
    if ":" not in path:
        raise InvalidConfig(
            f"{field}: no built-in is called {name!r} ({nearest(name, known)}); "
            "a function of your own is written 'package.module:function'"
        )
    return imported(field, path)


def _check_options(
    field: str, name: str, function: Callable[..., Any], options: Mapping[str, Any]
) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # a builtin without a signature
    try:
        signature.bind(**options)
    except TypeError as error:
        table = field.rpartition(".")[0]
        unknown = [key for key in options if key not in signature.parameters]
        hint = nearest(unknown[0], signature.parameters) if unknown else f"it takes {signature}"
        raise InvalidConfig(f"[{table}] does not fit {name!r}: {error}; {hint}") from error
