"""Spaces from files: presets by name, TOML files by path, and fields laid over them."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from s3search.errors import InvalidConfig, nearest
from s3search.files import is_there, text_of
from s3search.search.space.config import MutationRates, SpaceConfig
from s3search.search.space.noise_ranges import NoiseRanges

_TABLES: dict[str, type[BaseModel]] = {"mutation": MutationRates, "noise": NoiseRanges}
_WHOLE = ("noise",)  # tables that are replaced as a whole: what they do not name is off


def load_space(
    name_or_path: str | Path, overrides: Mapping[str, Any] | None = None
) -> SpaceConfig:
    """The space of a preset's name or a TOML file, with some of its fields replaced.

    >>> load_space("usf", {"nfe": [5], "mutation": {"start": 0}})
    """
    path = _preset_path(name_or_path)
    text = text_of(path)
    try:
        fields = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # TOML's own is a ValueError
        raise InvalidConfig(f"{path}: cannot be read as TOML ({error})") from error
    space = parse_space(fields, source=path.name)
    return parse_space(_merged(fields, overrides)) if overrides else space


def parse_space(fields: Mapping[str, Any], source: str = "space") -> SpaceConfig:
    """The space that a parsed TOML table describes; errors give the path inside ``source``."""
    try:
        return SpaceConfig.model_validate(dict(fields))
    except ValidationError as error:
        raise InvalidConfig(_first_problem(error, source)) from error


def preset_names() -> tuple[str, ...]:
    """Names of the presets that were installed with the package."""
    folder = preset_folder()
    return tuple(sorted(path.stem for path in folder.glob("*.toml"))) if folder else ()


def preset_folder() -> Path | None:
    """Where the presets were installed; None where they were not."""
    package = Path(__file__).resolve().parents[2]
    folders = (package / "search_spaces", package.parent / "search_spaces")  # wheel, checkout
    return next((folder for folder in folders if folder.is_dir()), None)


def _preset_path(name_or_path: str | Path) -> Path:
    text = str(name_or_path)
    folder = preset_folder()
    if folder is not None and text in preset_names():
        return folder / f"{text}.toml"
    path = Path(name_or_path)
    if path.suffix == ".toml" or (is_there(path) and path.is_file()):
        return path
    known = preset_names()
    listed = ", ".join(known) or "none installed"
    hint = nearest(text, known)
    suffix = f"; {hint}" if hint.startswith("did") else ""
    raise InvalidConfig(
        f"space.preset: no preset {text!r}; presets: {listed}{suffix}; "
        "a file of your own is named by its path, ending in .toml"
    )


def _merged(fields: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """``fields`` with ``overrides`` laid over them, tables within tables merged likewise but for
    those that are one choice.
    """
    merged = dict(fields)
    for key, value in overrides.items():
        old = merged.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping) and key not in _WHOLE
        merged[key] = _merged(old, value) if both else value  # type: ignore[arg-type] # both are
    return merged


def _first_problem(error: ValidationError, source: str) -> str:
    first = error.errors()[0]
    path = ".".join([source, *(str(part) for part in first["loc"])])
    if first["type"] == "extra_forbidden":
        inside = _TABLES.get(str(first["loc"][0]), SpaceConfig)
        return f"{path}: unknown key; {nearest(str(first['loc'][-1]), inside.model_fields)}"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] != "value_error":
        message += f" (found {first['input']!r})"
    return f"{path}: {message}"
