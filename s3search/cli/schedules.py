"""Commands of schedules: measure, draw, import and check one."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

import s3search
from s3search.cli.options import Address, AsJson, ScheduleFile, Sets, StudyFile
from s3search.cli.output import OUT, print_json, writable
from s3search.cli.settings import config_of
from s3search.schedules.schedule import Schedule, json_schema


def evaluate(
    schedule: ScheduleFile,
    study: StudyFile,
    n_images: Annotated[int, typer.Option("--n-images", min=2, help="Images to make.")] = 10_000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Noise seed.")] = 1,
    address: Address = "inline",
    sets: Sets = None,
    as_json: AsJson = False,
) -> None:
    """Measure one schedule with a study file's model, metric and reference; nothing is stored."""
    from s3search.show.terminal.results import evaluation_line

    config = config_of(study, None, address, sets)
    evaluation = s3search.evaluate(schedule, config, n_images=n_images, seed=seed)
    if as_json:
        found = evaluation.measurement.table()
        del found["replicates"]  # the interval says what they say
        print_json({**found, "interval_95": evaluation.interval})
    else:
        line = evaluation_line(evaluation.measurement, evaluation.interval)
        OUT.print(line, highlight=False, soft_wrap=True)


def show(
    schedule: ScheduleFile,
    png: Annotated[Path | None, typer.Option("--png", help="Also draw it to this file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Draw a schedule: noise levels and the choice made at each step."""
    from s3search.show.pictures import draw_schedule, terminal_drawing

    loaded = Schedule.load(schedule)
    if png is not None:
        writable(png)
        draw_schedule(loaded, png)
    if as_json:
        print_json({**loaded.to_dict(), "id": loaded.id})
    else:
        OUT.print(terminal_drawing(loaded))


def import_(  # noqa: PLR0913, PLR0917 (one parameter per option)
    form: Annotated[str, typer.Argument(metavar="FORMAT", help="docs/importers.md has them all.")],
    source: Annotated[str, typer.Argument(metavar="FILE", help="The file, or a table's name.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Schedule file to write.")],
    process: Annotated[
        str | None,
        typer.Option("--process", help="edm, score_sde, adm, lsun, sd, flow, or a JSON object."),
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Number of steps.")] = None,
    solver: Annotated[
        str | None,
        typer.Option("--solver", help="ddim, euler, heun, dpmpp_2m, dpmpp_3m or unipc."),
    ] = None,
    index: Annotated[
        int | None, typer.Option("--index", min=0, help="Which of several results, from 0.")
    ] = None,
    shift: Annotated[float | None, typer.Option("--shift", help="A flow's shift.")] = None,
    mean_image: Annotated[
        Path | None, typer.Option("--mean-image", help="Mean of the data: .npy or .npz.")
    ] = None,
    ems: Annotated[
        Path | None, typer.Option("--ems", help="EMS statistics of the model, for v3 steps.")
    ] = None,
    stop: Annotated[
        bool | None, typer.Option("--stop", help="End at the last entry, not the clean end.")
    ] = None,
    compat: Annotated[
        bool | None, typer.Option("--compat", help="As the published code acts, not its paper.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Turn another project's schedule into one of ours: usf, diffusers, sigmas, ays, ..."""
    from s3search.formats.importers import Request, import_schedule, process_named

    writable(output)
    request = Request(
        source=source,
        process=None if process is None else process_named(process),
        steps=steps,
        solver=solver,
        index=index,
        shift=shift,
        mean_image=mean_image,
        ems=ems,
        stop=stop,
        compat=compat,
    )
    schedule = import_schedule(form, request)
    schedule.save(output)
    found = {"file": str(output), "schedule_id": schedule.id, "nfe": schedule.nfe}
    if as_json:
        print_json({**found, **schedule.provenance})
        return
    OUT.print(f"wrote {output}: NFE {schedule.nfe}", highlight=False, soft_wrap=True)
    for note in schedule.provenance["imported"].get("notes", ()):
        OUT.print(f"note: {note}", highlight=False, soft_wrap=True)


def check(
    file: Annotated[Path, typer.Argument(help="A schedule (.json) or a study file (.toml).")],
    ems: Annotated[
        Path | None, typer.Option("--ems", help="The EMS file that the schedule names.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check a schedule or a study file without running anything."""
    if file.suffix == ".toml":
        from s3search.cluster import check_address
        from s3search.evaluation.spec import load_ems, load_gaussian
        from s3search.run.launching import space_of
        from s3search.study.file.config import load_config

        config = load_config(file)
        space_of(config)
        if config.statistics.ems is not None:
            load_ems(config.statistics.ems)
        if config.statistics.gaussian is not None:
            load_gaussian(config.statistics.gaussian)
        check_address(config.cluster.address)
        found: dict[str, Any] = {"file": str(file), "kind": "study", "name": config.study.name}
    else:
        from s3search.rules import EmsStatistics
        from s3search.solvers.plan import check_table

        loaded = Schedule.load(file)
        table = json.loads(file.read_text(encoding="utf-8")).get("plan")
        check_table(loaded, table, None if ems is None else EmsStatistics.load(ems))
        found = {"file": str(file), "kind": "schedule", "id": loaded.id, "nfe": loaded.nfe}
    if as_json:
        print_json({"valid": True, **found})
    else:
        details = ", ".join(f"{key} {value}" for key, value in found.items() if key != "file")
        OUT.print(f"{file}: valid ({details})", highlight=False, soft_wrap=True)


def schema() -> None:
    """Print the JSON Schema of schedule files."""
    print_json(json_schema())
