"""Commands that measure statistics of a study's model and images."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from s3search.cli.options import AsJson, StudyFile, command_group
from s3search.cli.output import ERR, answer, writable
from s3search.errors import InvalidConfig
from s3search.evaluation.limits import MOST_IMAGES

statistics = command_group("statistics", "Measure statistics of a study's model and images.")

OutputFile = Annotated[Path, typer.Option("--output", "-o", help="File to write (.safetensors).")]

Images = Annotated[
    int, typer.Option("--n-images", min=2, max=MOST_IMAGES, help="Clean images to measure on.")
]

ImageSource = Annotated[
    str, typer.Option("--source", help="Clean images: 'model' (its own) or 'reference'.")
]

Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of images and noise.")]


@statistics.command("ems")
def statistics_ems(
    study: StudyFile,
    output: OutputFile,
    nodes: Annotated[
        int, typer.Option("--nodes", min=2, help="Intervals between the nodes in lam.")
    ] = 120,
    n_images: Images = 1024,
    exact: Annotated[
        bool, typer.Option("--exact", help="Exact Jacobian diagonals: a product per pixel.")
    ] = False,
    source: ImageSource = "model",
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Measure the EMS of DPM-Solver-v3 for the study's model.

    Run it again to resume.
    """
    from s3search.study.file.config import load_config
    from s3search.tasks.statistics import measure_ems

    config = load_config(study)
    writable(output)
    found = measure_ems(
        config,
        output,
        n_intervals=nodes,
        n_images=n_images,
        n_probes=None if exact else 1,
        source=_source(source),
        seed=seed,
        report=_reporter("node"),
    )
    _print_statistics(output, {"digest": found.digest, **found.provenance}, as_json=as_json)


@statistics.command("gaussian")
def statistics_gaussian(
    study: StudyFile,
    output: OutputFile,
    n_images: Images = 1024,
    n_modes: Annotated[
        int, typer.Option("--modes", min=1, help="Leading eigenvectors to keep.")
    ] = 64,
    source: ImageSource = "model",
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Measure mean and leading eigenvectors of a model's images."""
    from s3search.study.file.config import load_config
    from s3search.tasks.statistics import measure_gaussian

    config = load_config(study)
    writable(output)
    found = measure_gaussian(
        config,
        output,
        n_images=n_images,
        n_modes=n_modes,
        source=_source(source),
        seed=seed,
        report=_reporter("image"),
    )
    shown = {"n_modes": len(found.eigenvalues), "rest": found.rest, **found.provenance}
    _print_statistics(output, shown, as_json=as_json)


def _source(name: str) -> Any:
    from s3search.tasks.statistics import CleanSource

    try:
        return CleanSource(name)
    except ValueError as error:
        raise InvalidConfig(f"--source is 'model' or 'reference', found {name!r}") from error


def _reporter(what: str) -> Callable[[int, int], None]:
    def report(done: int, total: int) -> None:
        if done == total or done % max(1, total // 10) == 0:
            ERR.print(f"{what} {done} of {total}", highlight=False)

    return report


def _print_statistics(output: Path, found: dict[str, Any], *, as_json: bool) -> None:
    details = ", ".join(f"{key} {value}" for key, value in found.items())
    answer({"file": str(output), **found}, f"wrote {output}: {details}", as_json=as_json)
