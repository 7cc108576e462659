"""A stored study as the TOML file that launches it again."""

import json
import re
from typing import Any

from s3search.study.file.config import StudyConfig

_SECRET = re.compile(r"token|secret|password|api_?key", re.IGNORECASE)
_BARE = re.compile(r"[A-Za-z0-9_-]+")


def study_toml(config: StudyConfig) -> str:
    """The study file, without the database's URL; values of keys that sound secret are left out.

    >>> parse_config(tomllib.loads(study_toml(config))) == config  # with the default storage
    """
    content = config.model_dump(mode="json", exclude={"storage"})
    blocks = []
    for name, table in content.items():
        if table is None:  # a study without a reference
            continue
        lines = [f"{_key(key)} = {_value(key, v)}" for key, v in table.items() if v is not None]
        blocks += [f"[{name}]\n" + "".join(f"{line}\n" for line in lines)] if lines else []
    return "".join(blocks)


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _text(name)


def _value(key: str, value: Any) -> str:
    if _SECRET.search(key) and isinstance(value, str):
        return '"left out of this page"'
    match value:
        case dict():
            inner = (f"{_key(k)} = {_value(k, v)}" for k, v in value.items() if v is not None)
            return "{" + ", ".join(inner) + "}"
        case list() | tuple():
            return "[" + ", ".join(_value(key, each) for each in value) + "]"
        case str():
            return _text(value)
        case float():
            return repr(value)
        case _:
            return json.dumps(value)


def _text(value: str) -> str:
    """A basic string: JSON's, whose escapes TOML has too, but for DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
