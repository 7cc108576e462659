"""Which schedules a person has rejected, and why: what a search must not build on, nor export.

A veto is a trial's note whose first line begins with "veto" or "reject", whatever comes after that
word is the reason.  It can be written in Optuna dashboard or with `s3search veto`, while a driver
runs or not; deleting that line lifts it.

    veto: blurred digits        vetoed, "blurred digits"
    **Rejected** twice over     vetoed, "twice over"
    no veto needed              not vetoed

Vetoes are kept among our own notes as well, by whoever opens the study to write; so they hold
where Optuna's study is gone or not whole.  Where a trial has a note, the note says what holds.

A vetoed schedule counts as one that did not work.  Nothing that was measured is lost: lifted, it
counts again.  `s3search.search.algorithms.sequential` and `s3search.search.algorithms.s3` say
what a search does about it, `s3search.study.results.frame` who is validated and exported.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa

from s3search.errors import InvalidConfig
from s3search.study.database.engine import connected
from s3search.study.database.rows import now
from s3search.study.database.tables import NOTES
from s3search.study.database.tables import STUDIES as OUR_STUDIES
from s3search.study.optuna.notes import notes_of, texts_of, write_note
from s3search.study.optuna.tables import ATTRIBUTES, TRIALS, trials_with

_FIRST_LINE = re.compile(r"[\s#>*_]*(?:veto|vetoed|reject|rejected)\b[\s*_:.,;-]*(.*)", re.I)
_ID = re.compile(r"[0-9a-f]{8,32}")
_IDS_PER_QUERY = 500  # a database takes so many parameters and no more
_SHOWN = 5
_KIND = "veto"  # of our notes


@dataclass(frozen=True, slots=True, kw_only=True)
class Veto:
    """A rejected schedule, the number of its trial in Optuna, and the reason as it was given."""

    schedule_id: str
    trial: int
    reason: str


@dataclass(frozen=True, slots=True)
class _Trial:
    id: int
    number: int
    schedule_id: str


def reason_in(note: str) -> str | None:
    """What a note gives as reason of its veto, perhaps nothing; None if it is no veto."""
    match = _FIRST_LINE.match(note.strip().partition("\n")[0])
    return None if match is None else match[1].strip(" *_")


def vetoes_of(connection: sa.Connection, study: str) -> dict[str, Veto]:
    """By schedule id, in the order of their trials."""
    kept = _kept(connection, study)
    texts = texts_of(connection, study)  # empty ones too: somebody has taken them back
    trials = _trials(connection, study, list(texts)) if texts else []
    found: dict[str, Veto] = {}
    for each in trials:
        kept.pop(each.schedule_id, None)
        reason = reason_in(texts[each.id])
        if reason is not None:
            own = Veto(schedule_id=each.schedule_id, trial=each.number, reason=reason)
            found.setdefault(each.schedule_id, own)
    both = [*found.values(), *kept.values()]
    return {each.schedule_id: each for each in sorted(both, key=lambda each: each.trial)}


def keep_vetoes(connection: sa.Connection, study_id: int, found: Mapping[str, Veto]) -> None:
    """Keeps a study's vetoes in our own tables, those and no others."""
    own = (NOTES.c.study_id == study_id) & (NOTES.c.kind == _KIND)
    connection.execute(NOTES.delete().where(own))
    rows = [
        {
            "study_id": study_id,
            "kind": _KIND,
            "digest": hashlib.sha256(f"{_KIND}{each.schedule_id}".encode()).hexdigest()[:32],
            "content": json.dumps(asdict(each)),
            "created_at": now(),
        }
        for each in found.values()
    ]
    if rows:
        connection.execute(NOTES.insert(), rows)


def veto(url: str, study: str, named: str, reason: str) -> Veto:
    """Rejects the schedule that a trial's number or an id's first digits name, beside whatever
    else its note says; raises `InvalidConfig` where they name none.
    """
    with connected(url, create=True) as connection:
        first = _named(connection, study, named)[0]
        said = " ".join(reason.split())
        rest = _without_veto(notes_of(connection, study).get(first.id, ""))
        note = f"veto: {said}\n\n{rest}" if rest else f"veto: {said}"
        write_note(connection, study, first.id, note)
        _keep(connection, study)
        return Veto(schedule_id=first.schedule_id, trial=first.number, reason=said)


def lift(url: str, study: str, named: str) -> Veto:
    """Takes a veto back; raises `InvalidConfig` where there is none."""
    with connected(url, create=True) as connection:
        trials = _named(connection, study, named)
        known = vetoes_of(connection, study)
        found = known.get(trials[0].schedule_id)
        if found is None:
            raise InvalidConfig(
                f"veto: trial {trials[0].number} of study {study!r} was to be freed of its "
                f"veto and has none; vetoed are {named_vetoes(known.values()) or 'none'}"
            )
        notes = notes_of(connection, study)
        for trial in trials:
            if reason_in(notes.get(trial.id, "")) is not None:
                write_note(connection, study, trial.id, _without_veto(notes[trial.id]))
            elif trial.id not in notes:
                write_note(connection, study, trial.id, "")  # says that the kept one is lifted
        _keep(connection, study)
        return found


def named_vetoes(vetoes: Iterable[Veto]) -> str:
    """The first of them with their reasons, for a sentence."""
    every = list(vetoes)
    words = [f"trial {v.trial}" + (f" ({v.reason})" if v.reason else "") for v in every[:_SHOWN]]
    more = [f"{len(every) - _SHOWN} more"] if len(every) > _SHOWN else []
    return ", ".join([*words, *more])


def _keep(connection: sa.Connection, study: str) -> None:
    study_id: int = connection.execute(_id_of(study)).scalar_one()
    keep_vetoes(connection, study_id, vetoes_of(connection, study))


def _kept(connection: sa.Connection, study: str) -> dict[str, Veto]:
    """What our own tables say, by schedule id."""
    query = sa.select(NOTES.c.content).where(NOTES.c.kind == _KIND)
    of_study = query.where(NOTES.c.study_id == _id_of(study).scalar_subquery())
    rows = connection.execute(of_study).scalars()
    return {each["schedule_id"]: Veto(**each) for each in map(json.loads, rows)}


def _id_of(study: str) -> sa.Select[Any]:
    return sa.select(OUR_STUDIES.c.id).where(OUR_STUDIES.c.name == study)


def _without_veto(note: str) -> str:
    if reason_in(note) is None:
        return note
    return note.strip().partition("\n")[2].strip()


def _named(connection: sa.Connection, study: str, named: str) -> list[_Trial]:
    """The trials of one schedule, the first one first."""
    trials = _trials(connection, study)
    if named.isascii() and named.isdigit() and len(named) < 8:
        ids = {each.schedule_id for each in trials if each.number == int(named)}
        asked = f"trial {named}"
    elif _ID.fullmatch(named):
        ids = {each.schedule_id for each in trials if each.schedule_id.startswith(named)}
        asked = f"schedule {named}"
    else:
        raise InvalidConfig(
            f"veto: {named!r} is neither a trial's number nor a schedule's id (8 to 32 digits of "
            "0-9a-f); the dashboard and `s3search best` show them"
        )
    if len(ids) != 1:
        found = f"{len(ids)} schedules of that name" if ids else f"{len(trials)} trials, not it"
        raise InvalidConfig(
            f"veto: {asked} was asked for, study {study!r} has {found}; what is still being "
            "measured has no trial yet, and an id may need more digits"
        )
    return [each for each in trials if each.schedule_id in ids]


def _trials(
    connection: sa.Connection, study: str, trial_ids: list[int] | None = None
) -> list[_Trial]:
    """Those that stand for a schedule, by number; of all, or of some ids."""
    if not sa.inspect(connection).has_table(ATTRIBUTES.name):
        return []
    query = trials_with("schedule_id", study).order_by(TRIALS.c.number)
    asked = [query]
    if trial_ids is not None:
        parts = [
            trial_ids[i : i + _IDS_PER_QUERY] for i in range(0, len(trial_ids), _IDS_PER_QUERY)
        ]
        asked = [query.where(TRIALS.c.trial_id.in_(part)) for part in parts]
    rows = [row for each in asked for row in connection.execute(each)]
    return [_Trial(row.trial_id, row.number, json.loads(row.value_json)) for row in rows]
