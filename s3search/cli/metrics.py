"""Commands of metrics: one schedule by all of them, and the statistics of real images."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from s3search.cli.options import AsJson, ScheduleFile, Sets, StudyFile
from s3search.cli.output import OUT, answer, print_json, writable
from s3search.cli.settings import config_of
from s3search.errors import InvalidConfig
from s3search.evaluation.limits import MOST_IMAGES


def metrics(  # noqa: PLR0913, PLR0917 (one parameter per option)
    schedule: ScheduleFile,
    study: StudyFile,
    n_images: Annotated[
        int | None,
        typer.Option(
            "--n-images",
            min=2,
            max=MOST_IMAGES,
            help="Images to make; else [validation] n_images.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Noise seed.")] = 1,
    n_trajectory: Annotated[
        int, typer.Option("--n-trajectory", min=2, help="Images to solve finely as well.")
    ] = 64,
    clip: Annotated[
        str | None, typer.Option("--clip", help="CLIP folder or hub id, for the CLIP score.")
    ] = None,
    download: Annotated[
        bool, typer.Option("--download", help="Fetch the CLIP weights if they are not here.")
    ] = False,
    sets: Sets = None,
    as_json: AsJson = False,
) -> None:
    """Measure one schedule by every metric; nothing is stored."""
    from rich.table import Table

    from s3search.schedules.schedule import Schedule
    from s3search.tasks.metrics import ClipOptions, measure_quality, report_lines

    report = measure_quality(
        config_of(study, None, None, sets),
        Schedule.load(schedule),
        n_images=n_images,
        n_trajectory=n_trajectory,
        noise_seed=seed,
        clip=None if clip is None else ClipOptions(path=clip, download=download),
    )
    if as_json:
        print_json(asdict(report))
        return
    table = Table(
        title=f"schedule {report.schedule_id}, NFE {report.nfe}, noise seed {report.noise_seed}",
        caption=f"reference {report.reference_digest}, model {report.model_fingerprint}, "
        f"protocol {report.protocol or 'none'}",
    )
    for column in ("metric", "value", "extractor", "images", "real", "settings"):
        table.add_column(column, overflow="fold")
    for row in report_lines(report):
        table.add_row(*row)
    OUT.print(table)


def reference(
    study: StudyFile,
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write (.npz).")],
    sets: Sets = None,
    as_json: AsJson = False,
) -> None:
    """Write the statistics of a study's real images to a file."""
    from s3search.evaluation.evaluator import Evaluator
    from s3search.metrics.references import StatisticsFile

    if output.suffix != ".npz":
        raise InvalidConfig(f"--output: statistics are written as .npz, found {output.name!r}")
    writable(output)
    config = config_of(study, None, None, sets)
    evaluator = Evaluator(config.measuring_spec)
    found, extractor = evaluator.reference, evaluator.metric.view.name
    if found is None or evaluator.real is None:
        raise InvalidConfig(
            f"metric.kind: {config.metric.kind!r} has no statistics that a file could keep; this "
            "command writes those of kind = 'frechet'"
        )
    source = evaluator.real.digest
    StatisticsFile(reference=found, extractor=extractor, source=source).save(output)
    said = {
        "digest": found.digest,
        "n": found.n,
        "dimensions": len(found.mean),
        "extractor": extractor,
        "source": source,
    }
    details = ", ".join(f"{key} {value}" for key, value in said.items() if value is not None)
    answer({"file": str(output), **said}, f"wrote {output}: {details}", as_json=as_json)
