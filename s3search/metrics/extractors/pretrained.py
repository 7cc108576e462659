"""Networks of the transformers library, from a folder or the hub's cache, whole or not at all."""

import importlib
from typing import Any

from s3search.errors import InvalidConfig


def pretrained(kind: str, field: str, path: str, *, download: bool) -> Any:
    """``transformers.<kind>`` with the weights at ``path``, in float32; raises `InvalidConfig`
    naming ``field``.

    A hub id is looked up in the local cache alone unless ``download``.  Weights that do not fill
    the network, which transformers makes up at random, are refused.
    """
    transformers = _transformers(field)
    bar = transformers.utils.logging
    shown = bar.is_progress_bar_enabled()
    bar.disable_progress_bar()
    try:
        network, info = getattr(transformers, kind).from_pretrained(
            path, local_files_only=not download, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise _absent(kind, field, path, error) from error
    finally:
        if shown:
            bar.enable_progress_bar()
    lacking = sorted(info["missing_keys"])
    if lacking:
        raise InvalidConfig(
            f"{field}: {path!r} does not fill a {kind}: {len(lacking)} weights are missing, the "
            f"first is {lacking[0]!r}; name a folder that {kind}.save_pretrained wrote"
        )
    return network.float()


def tokenizer(field: str, path: str, n_tokens: int, *, download: bool) -> Any:
    """The tokenizer beside the weights at ``path``; raises `InvalidConfig`.

    Where its files are missing transformers makes up an empty one, so it must know as many tokens
    as the network.
    """
    transformers = _transformers(field)
    try:
        found = transformers.AutoTokenizer.from_pretrained(path, local_files_only=not download)
    except (OSError, ValueError, KeyError) as error:
        raise _absent("tokenizer", field, path, error) from error
    if len(found) != n_tokens:
        raise InvalidConfig(
            f"{field}: the tokenizer at {path!r} knows {len(found)} tokens, the network "
            f"{n_tokens}; put the tokenizer's files (vocab.json, merges.txt) beside the weights"
        )
    return found


def _absent(kind: str, field: str, path: str, error: Exception) -> InvalidConfig:
    reason = str(error).partition("\n")[0]
    return InvalidConfig(
        f"{field}: no {kind} is found at {path!r} ({reason}); give the folder that "
        "save_pretrained wrote, or a hub id with download = true"
    )


def _transformers(field: str) -> Any:
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        raise InvalidConfig(
            f"{field}: these weights need transformers ({error}); "
            "install it with pip install transformers"
        ) from error
