"""What a command runs on: the study file with its overrides, and the database."""

import json
import os
from pathlib import Path
from typing import Any


def config_of(
    study: Path, storage: str | None, address: str | None, sets: list[str] | None
) -> Any:
    """The study's configuration; options win over overrides, these over the environment."""
    from s3search.study.file.config import load_config

    overrides = list(sets or [])
    if storage is not None:
        overrides.append(f"storage.url={json.dumps(storage)}")
    elif "S3SEARCH_STORAGE" in os.environ:
        overrides.insert(0, f"storage.url={json.dumps(os.environ['S3SEARCH_STORAGE'])}")
    if address is not None:
        overrides.append(f"cluster.address={json.dumps(address)}")
    return load_config(study, overrides)


def storage_url(storage: str | None) -> str:
    """The database's URL: the option, else the environment, else the default."""
    from s3search.study.file.config import DEFAULT_STORAGE

    return storage or os.environ.get("S3SEARCH_STORAGE") or DEFAULT_STORAGE
