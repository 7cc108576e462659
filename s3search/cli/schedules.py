"""Commands of schedules: measure, draw and import one."""

from pathlib import Path
from typing import Annotated

import typer

import s3search
from s3search.cli.options import Address, AsJson, ScheduleFile, Sets, StudyFile
from s3search.cli.output import OUT, answer, print_json, writable
from s3search.cli.settings import config_of
from s3search.evaluation.limits import MOST_IMAGES


def evaluate(
    schedule: ScheduleFile,
    study: StudyFile,
    n_images: Annotated[
        int, typer.Option("--n-images", min=2, max=MOST_IMAGES, help="Images to make.")
    ] = 10_000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Noise seed.")] = 1,
    address: Address = "inline",
    sets: Sets = None,
    as_json: AsJson = False,
) -> None:
    """Measure a schedule with a study's model; nothing is stored."""
    from s3search.show.terminal.results import evaluation_line

    config = config_of(study, None, address, sets)
    evaluation = s3search.evaluate(schedule, config, n_images=n_images, seed=seed)
    found = evaluation.measurement.table()
    del found["replicates"]  # the interval says what they say
    line = evaluation_line(evaluation.measurement, evaluation.interval)
    answer({**found, "interval_95": evaluation.interval}, line, as_json=as_json)


def show(
    schedule: ScheduleFile,
    png: Annotated[Path | None, typer.Option("--png", help="Also draw it to this file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Draw a schedule: its noise levels and the choice at each step."""
    from s3search.schedules.schedule import Schedule
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
        typer.Option("--solver", help="unipc, dpmpp_2m, euler_ancestral, dpmpp_2m_sde, ..."),
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
    eta: Annotated[
        float | None, typer.Option("--eta", min=0.0, help="How much noise a sampler adds.")
    ] = None,
    s_noise: Annotated[
        float | None, typer.Option("--s-noise", min=0.0, help="Multiplies that noise.")
    ] = None,
    compat: Annotated[
        bool | None, typer.Option("--compat", help="As the published code acts, not its paper.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Turn another project's schedule (usf, ays, sigmas) into ours."""
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
        eta=eta,
        s_noise=s_noise,
        compat=compat,
    )
    schedule = import_schedule(form, request)
    schedule.save(output)
    found = {"file": str(output), "schedule_id": schedule.id, "nfe": schedule.nfe}
    notes = [f"note: {note}" for note in schedule.provenance["imported"].get("notes", ())]
    lines = [f"wrote {output}: NFE {schedule.nfe}", *notes]
    answer({**found, **schedule.provenance}, *lines, as_json=as_json)


def schema() -> None:
    """Print the JSON Schema of schedule files."""
    from s3search.schedules.schedule import json_schema

    print_json(json_schema())
