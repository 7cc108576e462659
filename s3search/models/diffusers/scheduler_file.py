"""The scheduler config of a pipeline on disk: the one reader of them all."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s3search.errors import InvalidConfig
from s3search.files import json_of

CONFIG = "scheduler_config.json"

_INDEX = "model_index.json"
_SCHEDULER = "scheduler"  # its folder in a pipeline's, and its key in the pipeline's index


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerFile:
    """A scheduler config, the class that diffusers makes of it, and what to know of that."""

    path: Path
    config: Mapping[str, Any]
    class_name: str | None
    pipeline: str | None = None  # the class of the pipeline that it is part of
    notes: tuple[str, ...] = ()


def read_scheduler_file(source: str | Path) -> SchedulerFile:
    """The scheduler config of a pipeline's folder, of its scheduler's, or of the file itself.

    In a pipeline the index names the class, and the file's own `_class_name` does not count, as in
    diffusers.  Raises `InvalidConfig`.
    """
    given = Path(source)
    places = (given / _SCHEDULER / CONFIG, given / CONFIG, given)
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        is_folder = given.is_dir()
        path = given / CONFIG if is_folder else given
    config = _object(path)
    own = config.get("_class_name")
    if own is not None and not isinstance(own, str):
        raise InvalidConfig(f"{path}: _class_name: needs the name of a class, found {own!r}")
    index = _index_of(path)
    if index is None:
        return SchedulerFile(path=path, config=config, class_name=own)
    parts = _object(index)
    named, pipeline = _named(index, parts), parts.get("_class_name")
    notes: tuple[str, ...] = ()
    if named is not None and named != own:
        notes = (f"the class is {index.name}'s, {named}; the file's own _class_name is {own!r}",)
    return SchedulerFile(
        path=path,
        config=config,
        class_name=named or own,
        pipeline=pipeline if isinstance(pipeline, str) else None,
        notes=notes,
    )


def _object(path: Path) -> dict[str, Any]:
    found = json_of(path)
    if not isinstance(found, dict):
        raise InvalidConfig(
            f"{path}: not a scheduler config of diffusers, it is no JSON object and has no "
            "_class_name"
        )
    return found


def _index_of(path: Path) -> Path | None:
    """The index of the pipeline that a scheduler config belongs to."""
    if path.parent.name != _SCHEDULER:
        return None
    index = path.parent.parent / _INDEX
    return index if index.is_file() else None


def _named(index: Path, parts: Mapping[str, Any]) -> str | None:
    """The scheduler's class in a pipeline's index."""
    entry = parts.get(_SCHEDULER)
    if entry is None or entry == [None, None]:
        return None
    if not (isinstance(entry, list) and len(entry) == 2 and isinstance(entry[1], str)):
        raise InvalidConfig(f"{index}: {_SCHEDULER}: needs a library and a class, found {entry!r}")
    return entry[1]
