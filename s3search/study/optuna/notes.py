"""The notes that people write at trials, kept where Optuna dashboard (0.21) keeps them.

That is among the attributes of the trial's *study*, which can be changed when a trial is finished:

    dashboard:<trial_id>:note_ver       how often the note was saved: an open page of the dashboard
                                        does not write over what it has not seen
    dashboard:<trial_id>:note_str:<i>   piece i of its text; pieces of an earlier, longer note that
                                        are not needed any more are empty

They are read with one query for all trials of a study and written in the caller's transaction, so
the dashboard need not be installed.
"""

import json
import re
from collections.abc import Iterator

import sqlalchemy as sa
from sqlalchemy import select

from s3search.study.optuna.tables import STUDIES, STUDY_ATTRIBUTES

_PIECE = 2045  # characters
_KEY = re.compile(r"dashboard:(\d+):(note_ver|note_str:(\d+))")


def notes_of(connection: sa.Connection, study_name: str) -> dict[int, str]:
    """The notes that are not empty, by trial id; none where Optuna has no tables yet."""
    notes = texts_of(connection, study_name)
    return {trial_id: text for trial_id, text in notes.items() if text}


def texts_of(connection: sa.Connection, study_name: str) -> dict[int, str]:
    """All notes by trial id, those that were emptied too."""
    pieces: dict[int, dict[int, str]] = {}
    for _, trial_id, piece, value in _rows(connection, study_name):
        own = pieces.setdefault(trial_id, {})
        if piece is not None:
            own[piece] = value
    return {i: "".join(own[k] for k in sorted(own)) for i, own in sorted(pieces.items())}


def write_note(connection: sa.Connection, study_name: str, trial_id: int, text: str) -> None:
    """Replaces a trial's note."""
    own = [row for row in _rows(connection, study_name) if row[1] == trial_id]
    version = max((int(value) for _, _, piece, value in own if piece is None), default=0)
    wanted: dict[str, object] = {f"dashboard:{trial_id}:note_ver": version + 1}
    wanted |= {key: "" for key, _, piece, _ in own if piece is not None}
    for i, start in enumerate(range(0, len(text), _PIECE)):
        wanted[f"dashboard:{trial_id}:note_str:{i}"] = text[start : start + _PIECE]
    study_id = _study_id(connection, study_name)
    known = {key for key, *_ in own}
    table = STUDY_ATTRIBUTES
    for key, value in wanted.items():
        content = {"value_json": json.dumps(value)}
        if key in known:
            where = (table.c.study_id == study_id, table.c.key == key)
            connection.execute(table.update().where(*where).values(content))
        else:
            row = {"study_id": study_id, "key": key, **content}
            connection.execute(table.insert().values(row))


def _rows(connection: sa.Connection, study_name: str) -> list[tuple[str, int, int | None, str]]:
    """(key, trial id, number of the piece or None for the version, value)."""
    if not sa.inspect(connection).has_table(STUDY_ATTRIBUTES.name):
        return []
    query = (
        select(STUDY_ATTRIBUTES.c.key, STUDY_ATTRIBUTES.c.value_json)
        .join(STUDIES, STUDIES.c.study_id == STUDY_ATTRIBUTES.c.study_id)
        .where(
            STUDIES.c.study_name == study_name,
            STUDY_ATTRIBUTES.c.key.like("dashboard:%:note\\_%", escape="\\"),
        )
    )
    return list(_parsed((row.key, row.value_json) for row in connection.execute(query)))


def _parsed(
    rows: Iterator[tuple[str, str]],
) -> Iterator[tuple[str, int, int | None, str]]:
    for key, value in rows:
        match = _KEY.fullmatch(key)
        if match is not None:  # the study's own note has no trial in its keys
            piece = None if match[3] is None else int(match[3])
            yield key, int(match[1]), piece, json.loads(value)


def _study_id(connection: sa.Connection, study_name: str) -> int:
    query = select(STUDIES.c.study_id).where(STUDIES.c.study_name == study_name)
    return int(connection.execute(query).scalar_one())
