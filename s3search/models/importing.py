"""Functions and classes by their import paths."""

import importlib
from collections.abc import Callable
from typing import Any, cast

from s3search.errors import InvalidConfig, nearest


def imported(field: str, path: str) -> Callable[..., Any]:
    """The function or class at an import path, ``package.module:name``; raises `InvalidConfig`
    naming ``field``.
    """
    module_name, _, attribute = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # an import can fail in any way
        kind = type(error).__name__
        raise InvalidConfig(
            f"{field}: cannot import {module_name!r} ({kind}: {error}); "
            "is it beside the study file or in a folder of cluster.import_from, installed, or on "
            "PYTHONPATH, here and on the workers?"
        ) from error
    function = getattr(module, attribute, None)
    if not callable(function):
        raise InvalidConfig(
            f"{field}: {module_name!r} has no function {attribute!r}; "
            f"{nearest(attribute, [key for key in vars(module) if not key.startswith('_')])}"
        )
    return cast("Callable[..., Any]", function)
