"""Arguments and options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer


def command_group(name: str, about: str) -> typer.Typer:
    """Commands under one word, such as "jobs"."""
    return typer.Typer(name=name, help=about, no_args_is_help=True, rich_markup_mode=None)


AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]

Storage = Annotated[
    str | None,
    typer.Option(
        "--storage",
        help="Database URL; else $S3SEARCH_STORAGE, else sqlite:///s3search.db.",
    ),
]

StudyName = Annotated[
    str, typer.Argument(metavar="STUDY", help="Name of a study in the database.")
]

StudyFile = Annotated[Path, typer.Argument(metavar="STUDY.toml", help="A study file.")]

ScheduleFile = Annotated[Path, typer.Argument(metavar="SCHEDULE.json", help="A schedule file.")]

Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="TABLE.KEY=VALUE", help="Override a value of the study file."),
]

Address = Annotated[
    str | None, typer.Option("--address", help="inline, local, auto or ray://host:port.")
]
