"""A person's word on what a search found."""

from dataclasses import asdict
from typing import Annotated, Any

import typer

from s3search.cli.options import AsJson, Storage, StudyName
from s3search.cli.output import answer
from s3search.cli.settings import storage_url
from s3search.errors import InvalidConfig


def veto(
    study: StudyName,
    trial: Annotated[
        str | None,
        typer.Argument(
            metavar="[TRIAL]",
            help="A trial's number in the dashboard, or 8 digits or more of a schedule's id; "
            "without it all vetoes are listed.",
        ),
    ] = None,
    reason: Annotated[
        str | None, typer.Option("--reason", help="Why, in a few words; it is kept.")
    ] = None,
    lift: Annotated[bool, typer.Option("--lift", help="Take the veto back.")] = False,
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """Reject a schedule, while the search runs or later.

    Nothing is bred from it, it is neither validated nor exported. The same as a note
    "veto: REASON" at its trial in the dashboard.
    """
    from s3search.study.database.store import open_study

    _check(trial, reason, lift=lift)
    url = storage_url(storage)
    with open_study(url, study) as store:  # a wrong name is an error before anything is written
        known = store.vetoes()
    if trial is None:
        _list(study, known, as_json=as_json)
        return
    from s3search.study import vetoes

    if lift:
        done, what = vetoes.lift(url, study, trial), "lifted"
    else:
        done, what = vetoes.veto(url, study, trial, reason or ""), "vetoed"
    line = f"{what} trial {done.trial}, schedule {done.schedule_id}: {done.reason}"
    answer({"study": study, what: asdict(done)}, line, as_json=as_json)


def _check(trial: str | None, reason: str | None, *, lift: bool) -> None:
    if trial is None and (reason is not None or lift):
        found = "--lift" if lift else "--reason"
        raise InvalidConfig(f"veto: {found} was given without a trial; name one after the study")
    if trial is not None and lift and reason is not None:
        raise InvalidConfig("veto: --lift takes a veto back and needs no --reason; leave one out")
    if trial is not None and not lift and not (reason or "").strip():
        raise InvalidConfig(
            f"veto: trial {trial} was to be rejected without a reason; add --reason 'WHY'"
        )


def _list(study: str, known: dict[str, Any], *, as_json: bool) -> None:
    lines = [
        f"trial {each.trial}, schedule {each.schedule_id}: {each.reason or 'no reason'}"
        for each in known.values()
    ]
    value = {"study": study, "vetoed": [asdict(each) for each in known.values()]}
    answer(value, *(lines or [f"nothing in study {study} is vetoed"]), as_json=as_json)
