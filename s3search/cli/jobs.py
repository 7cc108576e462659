"""Commands that run a study as a job of a Ray cluster, and look after such jobs."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from s3search.cli.options import AsJson, Sets, StudyFile, command_group
from s3search.cli.output import ERR, answer, print_json, say
from s3search.cli.settings import config_of
from s3search.errors import InvalidConfig
from s3search.show.terminal.escaping import escaped

jobs = command_group("jobs", "Run studies as jobs of a Ray cluster; follow and stop them.")

JobServerAddress = Annotated[
    str,
    typer.Option(
        "--address", metavar="URL", help="Dashboard of the head, where its job server is."
    ),
]
LOCAL_SERVER = "http://127.0.0.1:8265"

JobId = Annotated[str, typer.Argument(metavar="ID", help="What `jobs submit` printed.")]


def submit(
    study: StudyFile,
    address: JobServerAddress = LOCAL_SERVER,
    storage: Annotated[
        str | None,
        typer.Option(
            "--storage",
            help="Database URL without a password, as the head sees it; else $S3SEARCH_STORAGE, "
            "else the study file's.",
        ),
    ] = None,
    head_storage: Annotated[
        bool,
        typer.Option("--head-storage", help="Take the $S3SEARCH_STORAGE that the head's Ray has."),
    ] = False,
    sets: Sets = None,
    working_dir: Annotated[
        Path | None,
        typer.Option(
            "--working-dir",
            help="Folder that travels too: the study file's, with the files and modules it names.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run a study on a Ray cluster; submitted again, it resumes."""
    from s3search.cluster.jobs import JobServer
    from s3search.study.file.config import load_config
    from s3search.tasks.submit import submission_of, travelling_folder

    if head_storage and storage is not None:
        raise InvalidConfig("--storage and --head-storage both name a database; give one of them")
    config = (
        load_config(study, sets or []) if head_storage else config_of(study, storage, None, sets)
    )
    sent = submission_of(
        config, study, sets=sets or [], folder=working_dir, head_storage=head_storage
    )
    server = JobServer(address)
    with travelling_folder(study, working_dir) as folder:
        job = server.submit(sent.command, folder=folder, study=sent.study)
    if as_json:
        found = {"job": job, "study": sent.study, "address": server.address}
        print_json(found | {"storage": sent.storage, "notes": list(sent.notes)})
        return
    say(*sent.notes, on=ERR)
    say(f"submitted {sent.study} as job {job}")
    for verb in (f"logs {job} --follow", f"status {job}", f"stop {job}"):
        say(f"  s3search jobs {verb} --address {server.address}")


@jobs.command("status")
def jobs_status(
    job_id: Annotated[str | None, typer.Argument(metavar="[ID]")] = None,
    address: JobServerAddress = LOCAL_SERVER,
    as_json: AsJson = False,
) -> None:
    """What became of a job, or of all submitted studies."""
    from s3search.cluster.jobs import JobServer

    server = JobServer(address)
    found = [server.job(job_id)] if job_id is not None else server.jobs()
    rows = [_row(job) for job in found]
    lines = [_line(row) for row in rows] or [f"no study was submitted to {server.address}"]
    value = rows[0] if job_id is not None else {"jobs": rows}
    answer(value, *lines, as_json=as_json)


@jobs.command("logs")
def jobs_logs(
    job_id: JobId,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the job is over.")
    ] = False,
    address: JobServerAddress = LOCAL_SERVER,
    as_json: AsJson = False,
) -> None:
    """What a job has printed."""
    from s3search.cluster.jobs import JobServer

    server = JobServer(address)
    pieces = server.follow(job_id) if follow else iter([server.logs(job_id)])
    if as_json:
        print_json({"id": job_id, "logs": "".join(pieces)})
        return
    for piece in pieces:
        sys.stdout.write(escaped(piece))
        sys.stdout.flush()


@jobs.command("stop")
def jobs_stop(
    job_id: JobId, address: JobServerAddress = LOCAL_SERVER, as_json: AsJson = False
) -> None:
    """Interrupt a job; what it measured is saved.

    Submitting the study again resumes it.
    """
    from s3search.cluster.jobs import JobServer

    row = _row(JobServer(address).stop(job_id))
    answer(row, _line(row), as_json=as_json)


def _row(job: Any) -> dict[str, Any]:
    times = {key: getattr(job, key) for key in ("started", "ended")}
    return asdict(job) | {key: t and t.isoformat(timespec="seconds") for key, t in times.items()}


def _line(row: dict[str, Any]) -> str:
    when = row["ended"] or row["started"]
    parts = [row["id"], row["state"], row["study"], when, row["message"].splitlines()[:1]]
    parts[-1] = parts[-1][0] if parts[-1] else None
    return "  ".join(part for part in parts if part)
