"""Commands that carry a schedule elsewhere: to other calls, processes and models."""

from pathlib import Path
from typing import Annotated

import typer

from s3search.cli.options import Address, AsJson, ScheduleFile, Sets, StudyFile
from s3search.cli.output import OUT, answer, print_json, say, writable
from s3search.cli.settings import config_of
from s3search.errors import InvalidConfig
from s3search.evaluation.limits import MOST_IMAGES


def retime(  # noqa: PLR0913, PLR0917 (one parameter per option)
    schedule: ScheduleFile,
    output: Annotated[Path, typer.Option("--output", "-o", help="Schedule file to write.")],
    nfe: Annotated[
        int | None, typer.Option("--nfe", min=1, help="Another number of network calls.")
    ] = None,
    process: Annotated[
        str | None,
        typer.Option("--process", help="edm, score_sde, adm, lsun, sd, flow, or a JSON object."),
    ] = None,
    study: Annotated[
        Path | None, typer.Option("--study", help="The process of this study file's model.")
    ] = None,
    solver: Annotated[
        str | None,
        typer.Option("--solver", help="A published solver on the same levels (unipc, ...)."),
    ] = None,
    fit: Annotated[
        bool, typer.Option("--fit", help="Move levels that the process does not have.")
    ] = False,
    sets: Sets = None,
    as_json: AsJson = False,
) -> None:
    """Move a schedule to other calls or another process.

    It says what is approximated.
    """
    from s3search.formats.importers import process_named
    from s3search.schedules.schedule import Schedule
    from s3search.tasks.retime import Move, moved, process_of_study

    if process is not None and study is not None:
        raise InvalidConfig("--process and --study name two processes; give one")
    if sets and study is None:
        raise InvalidConfig("--set changes a study file; give --study STUDY.toml too")
    writable(output)
    loaded = Schedule.load(schedule)
    target = None if process is None else process_named(process)
    if study is not None:
        target = process_of_study(config_of(study, None, None, sets))
    found = moved(loaded, Move(nfe=nfe, process=target, solver=solver, fit=fit))
    found.schedule.save(output)
    made, notes = found.schedule, [f"note: {note}" for note in found.notes]
    value = {"file": str(output), "schedule_id": made.id, "nfe": made.nfe, "from": loaded.id}
    line = f"wrote {output}: {made.process.type}, NFE {made.nfe}"
    answer({**value, "notes": list(found.notes)}, line, *notes, as_json=as_json)


def robustness(
    schedules: Annotated[
        list[Path], typer.Argument(metavar="SCHEDULE.json...", help="Schedule files.")
    ],
    study: StudyFile,
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="TABLE.KEY=VALUE",
            help="A variant with this value of the study file; repeat for more variants.",
        ),
    ] = None,
    studies: Annotated[
        list[Path] | None,
        typer.Option("--study", help="A variant of its own: another study file; repeatable."),
    ] = None,
    n_images: Annotated[
        int, typer.Option("--n-images", min=2, max=MOST_IMAGES, help="Images of each.")
    ] = 10_000,
    seeds: Annotated[
        list[int] | None,
        typer.Option("--seed", min=0, help="Noise seed; repeat for every variant at each."),
    ] = None,
    address: Address = "inline",
    as_json: AsJson = False,
) -> None:
    """Measure schedules, and published solvers, under variants."""
    from s3search.show.terminal.robustness import robustness_lines, robustness_table
    from s3search.tasks.robustness import carried, variants_of
    from s3search.tasks.robustness import robustness as measure

    loaded = carried(schedules)
    configs = [(study.name, config_of(study, None, address, None))]
    configs += [(each, config_of(study, None, address, [each])) for each in sets or ()]
    configs += [(str(each), config_of(each, None, address, None)) for each in studies or ()]
    variants = variants_of(configs, seeds or [1])

    def report(line: str) -> None:
        if not as_json:
            say(f"measuring {line}")

    found = measure(loaded, variants, n_images=n_images, report=report)
    if as_json:
        print_json(found)
        return
    OUT.print(robustness_table(found))
    say(*robustness_lines(found))
