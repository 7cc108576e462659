"""Out of a study or a schedule file, into the format of a runtime."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from s3search.cli.options import AsJson, Storage
from s3search.cli.output import OUT, print_json, say, writable
from s3search.cli.settings import storage_url
from s3search.errors import InvalidConfig

if TYPE_CHECKING:
    from s3search.schedules.schedule import Schedule


def export(  # noqa: PLR0913, PLR0917 (one parameter per option)
    study: Annotated[
        str | None, typer.Argument(metavar="[STUDY]", help="A study in the database.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File (or folder) to write.")
    ] = None,
    nfe: Annotated[int | None, typer.Option("--nfe", help="Which number of calls.")] = None,
    form: Annotated[
        str, typer.Option("--format", help="json, diffusers, k-diffusion, comfyui or sigmas.")
    ] = "json",
    schedule: Annotated[
        Path | None, typer.Option("--schedule", help="A schedule file instead of a study.")
    ] = None,
    ems: Annotated[
        Path | None, typer.Option("--ems", help="EMS file that the --schedule names.")
    ] = None,
    pipeline: Annotated[
        Path | None,
        typer.Option("--pipeline", help="For diffusers: the pipeline's folder, to run there."),
    ] = None,
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """Write a study's best schedule, or a file, for a runtime."""
    from s3search.formats.exporters import ExportRequest, export_schedule
    from s3search.formats.exporters.formats import format_named
    from s3search.schedules.schedule import Schedule

    _check_output(output, form, is_folder=format_named(form).is_folder)
    if schedule is not None:
        if study is not None or nfe is not None or storage is not None:
            raise InvalidConfig(
                f"--schedule: {schedule} was given beside a study's name, --nfe or --storage; "
                "a file is exported as it is, so leave those out"
            )
        chosen, said = Schedule.load(schedule), ""
    else:
        if study is None:
            raise InvalidConfig(
                "export: needs the name of a study, or --schedule FILE; found neither"
            )
        if ems is not None:
            raise InvalidConfig("--ems: a study names its own EMS file; leave it out")
        chosen, value, ems = _best(storage_url(storage), study, nfe)
        said = f", {value:.4f} on held-out noise"
    if output is None:
        _print_sigmas(chosen, as_json=as_json)
        return
    request = ExportRequest(schedule=chosen, output=output, ems=ems, pipeline=pipeline)
    made = export_schedule(form, request)
    if as_json:
        found: dict[str, Any] = {"file": str(made.files[0]), "schedule_id": chosen.id}
        found |= {"files": [str(path) for path in made.files], "report": made.report.to_dict()}
        print_json({**found, **chosen.provenance})
        return
    lines = [f"wrote {path}: NFE {chosen.nfe}{said}" for path in made.files[:1]]
    lines += [f"wrote {path}" for path in made.files[1:]]
    lines += chosen.provenance.get("claim", {}).get("says", ())
    lines += [*made.report.lines(), *(f"tied to: {each}" for each in chosen.tied_to)]
    say(*lines)


def _check_output(output: Path | None, form: str, *, is_folder: bool) -> None:
    """Raises `InvalidConfig` where nothing can be written; a list may be printed instead."""
    if output is None:
        if form != "sigmas":
            raise InvalidConfig("--output: names no file to write; add -o FILE")
    elif is_folder:
        if output.exists() and not output.is_dir():
            raise InvalidConfig(f"--output: --format {form} writes a folder, {output} is a file")
    else:
        writable(output)


def _print_sigmas(schedule: "Schedule", *, as_json: bool) -> None:
    """The list as it would be written, where no file is named."""
    from s3search.formats.exporters.sigmas import sigmas_file, sigmas_of

    text, report = sigmas_file(schedule)
    if as_json:
        found = {"schedule_id": schedule.id, "sigmas": sigmas_of(schedule)}
        print_json({**found, "report": report.to_dict(), **schedule.provenance})
    else:
        OUT.print(text, end="", highlight=False, soft_wrap=True, markup=False)


def _best(url: str, study: str, nfe: int | None) -> "tuple[Schedule, float, Path | None]":
    """The schedule, its held-out value and the study's EMS file."""
    from s3search.evaluation.spec import load_ems
    from s3search.study.database.store import open_study
    from s3search.study.results.export import best_schedule

    with open_study(url, study) as store:
        schedule, chosen = best_schedule(store, nfe)
        ems = store.config.statistics.ems
    if ems is not None and schedule.statistics is not None:
        load_ems(ems)  # says which key of the study names what cannot be read
    return schedule, chosen.value, None if ems is None else Path(ems)
