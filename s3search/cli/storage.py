"""Commands of the study database itself: copied, brought up to date, made smaller."""

from dataclasses import asdict
from typing import Annotated, Any

import typer

from s3search.cli.options import AsJson, Storage, command_group
from s3search.cli.output import answer, print_json, say
from s3search.cli.settings import storage_url

storage_app = command_group(
    "storage", "Copy, upgrade, prune the database; publish to the dashboard."
)

Studies = Annotated[
    list[str] | None, typer.Argument(metavar="[STUDY]...", help="Names of studies.")
]


@storage_app.command()
def copy(
    target: Annotated[str, typer.Option("--to", help="Database URL to copy to.")],
    studies: Studies = None,
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """Copy studies, or all of them, to another database.

    With their trials.
    """
    from s3search.show.dashboard.artifacts import carry_files
    from s3search.study.database.engine import redacted
    from s3search.study.database.upkeep import copy_studies

    done: list[dict[str, Any]] = []

    def announce(copied: Any) -> None:
        done.append(asdict(copied))
        if not as_json:
            line = f"copied {copied.study}: {_counts(copied.rows)}, {copied.trials} Optuna trials"
            say(line)

    url = storage_url(storage)
    copy_studies(
        url, target, studies or [], announce, lambda study: carry_files(url, target, study)
    )
    if as_json:
        print_json({"to": redacted(target), "studies": done})


@storage_app.command()
def upgrade(storage: Storage = None, as_json: AsJson = False) -> None:
    """Bring tables of an earlier release up to this one's.

    Make a backup first.
    """
    from s3search.study.database.engine import redacted
    from s3search.study.database.upkeep import upgrade as upgraded

    url = storage_url(storage)
    before, after = upgraded(url)
    line = f"{redacted(url)}: schema {before or 'none'}, now {after}"
    if before == after:
        line = f"{redacted(url)}: schema {after} is this release's; nothing to do"
    found = {"storage": redacted(url), "before": before, "after": after}
    answer(found, line, as_json=as_json)


@storage_app.command()
def prune(
    studies: Studies = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Do it; without this, only say what would go.")
    ] = False,
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """Remove studies for good, and what no study names."""
    from s3search.study.database.upkeep import prunable
    from s3search.study.database.upkeep import prune as pruned

    url = storage_url(storage)
    found = pruned(url, studies or []) if yes else prunable(url, studies or [])
    what = ", ".join(found.studies) or "no study"
    size = "" if found.bytes_freed is None else f"; {found.bytes_freed / 1e6:.1f} MB freed"
    line = (
        f"{'removed' if yes else 'would remove'} {what} ({_counts(found.rows)}) and "
        f"{found.schedules} schedules that no other study names{size}"
    )
    more = [] if yes else ["nothing was changed; add --yes to do it"]
    answer({"done": yes, **asdict(found)}, line, *more, as_json=as_json)


def _counts(rows: dict[str, int]) -> str:
    return ", ".join(f"{n} {table.removeprefix('s3search_')}" for table, n in rows.items())
