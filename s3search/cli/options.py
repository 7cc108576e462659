"""Arguments and options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

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
