"""Commands of the dashboard: serve it, and put on a study what it shows."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from s3search.cli.announcing import announce_code
from s3search.cli.options import AsJson, Storage, StudyName
from s3search.cli.output import answer, print_json, say
from s3search.cli.settings import storage_url

Artifacts = Annotated[
    Path | None,
    typer.Option(
        "--artifacts",
        help="Folder of drawings and samples; else the one beside an SQLite database.",
    ),
]


def dashboard(
    storage: Storage = None,
    port: Annotated[int, typer.Option("--port", help="Port; 0 takes a free one.")] = 8080,
    host: Annotated[
        str,
        typer.Option(
            "--host", help="Address to listen on; others than this machine's need --password-file."
        ),
    ] = "127.0.0.1",
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-host",
            metavar="NAME",
            help="A further name that browsers may ask for it by, such as that of a proxy.",
        ),
    ] = None,
    password_file: Annotated[
        Path | None,
        typer.Option(
            "--password-file", help="Ask for a login; the file has NAME:PASSWORD, one a line."
        ),
    ] = None,
    writable: Annotated[
        bool,
        typer.Option(
            "--writable",
            help="Let whoever reaches it change and delete studies; "
            "without this it only shows them.",
        ),
    ] = False,
    artifacts: Artifacts = None,
    as_json: AsJson = False,
) -> None:
    """Serve Optuna dashboard on the database, for this machine.

    It is read-only unless told otherwise.
    """
    from s3search.show.dashboard import Access, Address, Login, serve

    access = Access(
        hosts=frozenset(name.lower() for name in allow_host or ()),
        login=None if password_file is None else Login.from_file(password_file),
        writable=writable,
    )
    announce = print_json if as_json else _announce
    serve(storage_url(storage), Address(host, port), access, announce, artifacts=artifacts)


def publish(
    study: StudyName,
    samples: Annotated[
        int,
        typer.Option(
            "--samples",
            min=0,
            max=100,
            help="Images of each validated schedule; more than 0 runs the study's model here.",
        ),
    ] = 0,
    artifacts: Artifacts = None,
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """Write a study's note and graphs for Optuna dashboard.

    And its drawings; `launch` does this at its end.
    """
    from s3search.show.dashboard.publish import publish as written

    url = storage_url(storage)
    if samples:
        announce_code(url, study)
    found = written(url, study, artifacts=artifacts, n_samples=samples)
    where = f"{found.artifacts} artifacts in {found.folder}"
    if found.folder is None:
        where = "no artifacts, since this database has no folder of its own (--artifacts)"
    line = f"{study}: a note, {len(found.cards)} graphs, {where}; look with `s3search dashboard`"
    answer(asdict(found), line, as_json=as_json)


def _announce(found: dict[str, Any]) -> None:
    mode = "open for changes" if found["writable"] else "read-only"
    say(
        f"Optuna dashboard on {found['url']}, overview on {found['overview']}, {mode} "
        "(stop with Ctrl-C)"
    )
