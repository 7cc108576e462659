"""Study files of well-known models, to copy and complete: ``search_spaces/studies/*.toml``.

The first line of each says in a comment what it is; lines that end in ``# fill in`` (with what
belongs there after a colon) hold the values that are the user's own.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from s3search.errors import InvalidConfig, nearest
from s3search.files import is_there
from s3search.search.space import preset_folder
from s3search.study.file.config import StudyConfig

_TABLE = re.compile(r"\[([\w.]+)\]")
_BLANK = re.compile(r"(\w+) = .*# fill in(?:: (.*))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyPreset:
    """One study file as it was installed."""

    name: str
    text: str

    @property
    def summary(self) -> str:
        """What it searches, in one line."""
        return self.text.partition("\n")[0].removeprefix("# ")

    @property
    def tables(self) -> dict[str, Any]:
        """Its tables as they stand."""
        return tomllib.loads(self.text)

    @property
    def blanks(self) -> dict[str, str]:
        """The keys to fill in, as ``table.key``, and what belongs there."""
        found, table = {}, ""
        for line in self.text.splitlines():
            if heading := _TABLE.match(line):
                table = heading[1]
            elif blank := _BLANK.fullmatch(line):
                found[f"{table}.{blank[1]}"] = blank[2] or ""
        return found


def unfilled(config: StudyConfig) -> dict[str, str]:
    """The keys of a study that are still as in a preset, or "path/to/...", while no such file is
    there, and what belongs there.
    """
    presets = {
        (key, _value(preset.tables, key)): what
        for preset in study_presets()
        for key, what in preset.blanks.items()
    }
    found = {}
    for name, table in config.model_dump(mode="json").items():
        for key, value in (table or {}).items():
            path = f"{name}.{key}"
            if not isinstance(value, str) or is_there(value):
                continue
            if (path, value) in presets or value.startswith("path/to/"):
                found[path] = presets.get((path, value), "")
    return found


def _value(tables: Mapping[str, Any], path: str) -> Any:
    table, _, key = path.partition(".")
    return tables.get(table, {}).get(key)


def study_presets() -> tuple[StudyPreset, ...]:
    """All that were installed with the package, by name."""
    folder = preset_folder()
    files = sorted((folder / "studies").glob("*.toml")) if folder is not None else []
    return tuple(
        StudyPreset(name=file.stem, text=file.read_text(encoding="utf-8")) for file in files
    )


def study_preset(name: str) -> StudyPreset:
    """The one of this name; raises `InvalidConfig`, which names the nearest."""
    known = {preset.name: preset for preset in study_presets()}
    if name not in known:
        raise InvalidConfig(
            f"no preset {name!r}; presets: {', '.join(known) or 'none installed'}; "
            f"{nearest(name, known)}"
        )
    return known[name]
