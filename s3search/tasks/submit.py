"""What travels to a cluster when a study is submitted: one shell command and one folder.

Both can be read by everyone who reaches the cluster, so no password goes into them; and the folder
is deleted with the job, so no database may lie in it.
"""

import contextlib
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url

from s3search.errors import InvalidConfig
from s3search.study.database.engine import SECRETS
from s3search.study.file.config import StudyConfig

_HEAD_STORAGE = (
    ": \"${S3SEARCH_STORAGE:?is not set in the environment of the head's Ray; "
    'set it before ray start}"; '
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """``command`` runs on the head in a copy of the folder; ``notes`` are for the user to read."""

    study: str
    command: str
    storage: str
    notes: tuple[str, ...]


@contextlib.contextmanager
def travelling_folder(study: Path, folder: Path | None) -> Iterator[Path]:
    """The folder that goes with the job: ``folder``, else one that holds the study file alone."""
    if folder is not None:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="s3search-") as made:
        shutil.copyfile(study, Path(made, study.name))
        yield Path(made)


def submission_of(
    config: StudyConfig,
    study: Path,
    *,
    sets: Sequence[str],
    folder: Path | None,
    head_storage: bool,
) -> Submission:
    """The command for the head, or `InvalidConfig` when it could not do there what is meant.

    ``config`` is the study with ``sets`` and its database as chosen here; with ``head_storage``
    the head's own $S3SEARCH_STORAGE is the database instead.
    """
    _check_sets(sets)
    url = _parsed(config.storage.url)
    _check_no_secret(url)
    name = _name_in_folder(study, folder)
    _check_files(config, folder)
    words = ["s3search", "launch", name.as_posix(), "--address", "auto"]
    words += [word for given in sets for word in ("--set", given)]
    if head_storage:
        command = _HEAD_STORAGE + "exec " + shlex.join(words)
        return Submission(
            study=config.study.name, command=command, storage="$S3SEARCH_STORAGE", notes=()
        )
    command = "exec " + shlex.join([*words, "--storage", config.storage.url])
    return Submission(
        study=config.study.name,
        command=command,
        storage=config.storage.url,
        notes=_notes_on(url),
    )


def _check_sets(sets: Sequence[str]) -> None:
    if any(given.replace(" ", "").startswith("storage.url=") for given in sets):
        raise InvalidConfig(
            "--set storage.url: name the database of a submitted study with --storage, or with "
            "--head-storage"
        )


def _parsed(url: str) -> URL:
    try:
        return make_url(url)
    except sa.exc.ArgumentError as error:
        raise InvalidConfig(
            "storage: no database URL; for example postgresql+psycopg://user@host/name"
        ) from error


def _check_no_secret(url: URL) -> None:
    if url.password is None and not SECRETS & url.query.keys():
        return
    shown = url.set(query={k: v for k, v in url.query.items() if k not in SECRETS})
    raise InvalidConfig(
        f"storage: {shown.render_as_string(hide_password=True)} has a password, and everyone who "
        "reaches the cluster can read what a job is given; leave it out and let the database's "
        "client find it on the head (~/.pgpass, or PGPASSFILE in the environment of `ray start`), "
        "or set S3SEARCH_STORAGE on the head before `ray start` and submit with --head-storage"
    )


def _notes_on(url: URL) -> tuple[str, ...]:
    """What to know of a database that is the head's own; raises for one that cannot be."""
    if url.get_backend_name() != "sqlite":
        if (url.host or url.query.get("host") or "localhost") not in ("localhost", "127.0.0.1"):
            return ()
        return (f"storage: {url.host or 'a local socket'} means the head, where the search runs",)
    if url.database and Path(url.database).is_absolute():
        return (
            f"storage: {url.database} is a file of the head; `s3search status` reads it there, "
            "and it lives as long as the head's disk",
        )
    raise InvalidConfig(
        f"storage: {url} would lie in the job's folder on the head, which is deleted with the "
        "job; give --storage postgresql+psycopg://user@host/name, a file that stays on the head "
        "(--storage sqlite:////data/s3search.db), or --head-storage for the head's own "
        "$S3SEARCH_STORAGE"
    )


def _name_in_folder(study: Path, folder: Path | None) -> Path:
    """How the job names the study file in its folder."""
    if folder is None:
        return Path(study.name)
    try:
        return study.resolve().relative_to(folder.resolve(strict=True))
    except (OSError, ValueError) as error:
        raise InvalidConfig(
            f"--working-dir {folder}: {study} is not in it; give a folder that holds the study "
            "file and everything that it names"
        ) from error


def _check_files(config: StudyConfig, folder: Path | None) -> None:
    """Raises for a file that the study names, that is here and would not be there."""
    tables = config.model_dump(mode="json", exclude={"storage", "cluster"})
    for key, value in _strings(tables):
        looks_like_a_path = "/" in value or Path(value).suffix
        if Path(value).is_absolute() or not looks_like_a_path or not Path(value).exists():
            continue
        if folder is None or not (folder / value).exists():
            raise InvalidConfig(
                f"{key}: {value} is a file of this machine that the cluster would lack; submit "
                "with --working-dir and the folder in which the study file and this path are, or "
                "name a file that every node has by its absolute path"
            )


def _strings(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every string in nested tables, with its dotted key."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _strings(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item, key)
