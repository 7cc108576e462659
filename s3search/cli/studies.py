"""Commands of studies: run one, look at it, take its result."""

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

import s3search
from s3search.cli.announcing import announce_code
from s3search.cli.comparing import (
    GRID,
    are_files,
    check_asked,
    check_options,
    compare_files,
    comparison,
    extended,
    print_comparison,
)
from s3search.cli.options import Address, AsJson, Sets, Storage, StudyFile, StudyName
from s3search.cli.output import ERR, OUT, answer, make_folder, print_json, resumable, say, writable
from s3search.cli.settings import config_of, storage_url
from s3search.cli.watching import watch as keep_watching
from s3search.errors import InvalidConfig
from s3search.files import write_text
from s3search.show.terminal.escaping import SafeConsole

Schedulers = Annotated[
    bool,
    typer.Option(
        "--schedulers", help="First measure diffusers' schedulers on the same noise; stored."
    ),
]
Grid = Annotated[
    Path | None,
    typer.Option(
        "--grid", help="Also write a PNG: found, published and the pipeline's own; with --samples."
    ),
]
MaySample = Annotated[
    bool,
    typer.Option(
        "--samples", help="Let --grid run the model that the study names in its database."
    ),
]


def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for what is made.")
    ] = Path("s3search-demo"),
    quick: Annotated[
        bool, typer.Option("--quick", help="A smoke test; its numbers mean little.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Search for the embedded digits model: minutes on two cores."""
    from s3search.study.file.config import load_config
    from s3search.tasks import demo as demonstration

    make_folder(output)
    screen = ERR if as_json else OUT
    say(f"searching schedules of five calls for a small model of digits, in {output}", on=screen)
    study = output.resolve() / "study.toml"
    write_text(study, demonstration.study_text(output.resolve(), quick=quick))
    config = load_config(study)
    _launch(config, on=screen)
    paths = demonstration.write_pictures(config, output)
    result = comparison(config.storage.url, config.study.name)
    if as_json:
        print_json({**result, "files": [str(path) for path in (study, *paths)]})
        return
    print_comparison(result)
    say(*(f"wrote {path}" for path in (study, *paths)))
    _conclude(config, result, "dashboard")


def launch(
    study: StudyFile,
    storage: Storage = None,
    address: Address = None,
    sets: Sets = None,
    takeover: Annotated[
        bool,
        typer.Option("--takeover", help="Take the study from another driver, which stops."),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Say what it would cost, by a few images; write nothing."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run the study of a study file to its end, or go on with it."""
    screen = ERR if as_json else OUT
    with screen.status(f"reading {study}"):
        config = config_of(study, storage, address, sets)
    if dry_run:
        _foretell(config, as_json=as_json)
        return
    warnings = _launch(config, on=screen, takeover=takeover)
    result = comparison(config.storage.url, config.study.name)
    if as_json:
        print_json(result)
        return
    print_comparison(result)
    say(*(f"warning: {warning}" for warning in warnings))
    nfe = str(config.space.nfe[0])
    _conclude(config, result, "export", config.study.name, "--nfe", nfe, "-o", "schedule.json")


def status(
    study: Annotated[str | None, typer.Argument(metavar="[STUDY]")] = None,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Show it as it runs, from any machine, until it is done."),
    ] = False,
    every: Annotated[
        float | None,
        typer.Option("--every", min=0.1, help="Seconds between two looks of --watch; 2."),
    ] = None,
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """How far studies are, what they found and what it cost."""
    from s3search.show.terminal.status import status_lines
    from s3search.study.database.store import study_names

    url = storage_url(storage)
    if watch:
        keep_watching(url, study, 2.0 if every is None else every, as_json=as_json)
        return
    if every is not None:
        raise InvalidConfig("--every is how often --watch looks; add --watch")
    rows = [_status(url, name) for name in ([study] if study else study_names(url))]
    answer(rows[0] if study else {"studies": rows}, *status_lines(rows), as_json=as_json)


def best(
    study: StudyName,
    nfe: Annotated[int | None, typer.Option("--nfe", help="Only this number of calls.")] = None,
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """The best schedule of each number of calls, on unseen noise."""
    from s3search.show.terminal.results import best_lines
    from s3search.study.database.store import open_study
    from s3search.study.results.export import best_schedule

    rows = []
    with open_study(storage_url(storage), study) as store:
        for calls in [nfe] if nfe is not None else store.config.space.nfe:
            schedule, _ = best_schedule(store, calls)
            rows.append({"schedule_id": schedule.id, "nfe": schedule.nfe, **schedule.provenance})
        vetoed = list(store.vetoes().values())
    value = {"study": study, "best": rows, "vetoed": [asdict(each) for each in vetoed]}
    lines = best_lines(rows, [(each.trial, each.reason) for each in vetoed])
    answer(value, *lines, as_json=as_json)


def compare(  # noqa: PLR0913, PLR0917 (one parameter per option)
    context: typer.Context,
    study: Annotated[
        str, typer.Argument(metavar="STUDY", help="A study's name, or a schedule file.")
    ],
    other: Annotated[
        str | None,
        typer.Argument(metavar="[B.json]", help="Another file: the two are set side by side."),
    ] = None,
    schedulers: Schedulers = False,
    grid: Grid = None,
    samples: MaySample = False,
    picture: Annotated[
        Path | None, typer.Option("--picture", help="Also draw two schedules to this file.")
    ] = None,
    address: Address = "inline",
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """Found against every published solver; or two schedule files.

    All on the same held-out noise, the solvers at their best spacing.
    """
    files = are_files(study, other)
    check_options(context, files=files)
    if other is not None:
        compare_files(study, other, picture, as_json=as_json)
        return
    url = storage_url(storage)
    if grid is not None:
        writable(grid)
    check_asked(url, study, is_asked=samples or schedulers or grid is None)
    missing = extended(url, study, address, grid, schedulers=schedulers, quiet=as_json)
    no_grid = missing.get(GRID)
    drawn = None if grid is None or no_grid else str(grid)
    if as_json:
        without = {name: why for name, why in missing.items() if name != GRID}
        added = {"schedulers_without": without} if schedulers else {}
        drawings = {} if grid is None else {"grid": drawn}
        if no_grid:
            drawings["grid_without"] = no_grid
        print_json(comparison(url, study) | added | drawings)
        return
    print_comparison(comparison(url, study))
    say(*(f"without {name}: {why}" for name, why in missing.items()))
    if drawn is not None:
        say(f"wrote {drawn}")


def report(
    study: StudyName,
    output: Annotated[Path, typer.Option("--output", "-o", help="HTML file to write.")] = Path(
        "report.html"
    ),
    samples: Annotated[
        int,
        typer.Option(
            "--samples",
            min=0,
            max=100,
            help="Images made with each schedule, say 24; more than 0 runs the model that the "
            "study names here. Without it the database is only read.",
        ),
    ] = 0,
    no_samples: Annotated[
        bool, typer.Option("--no-samples", help="Read the database only, as without --samples.")
    ] = False,
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """Write a finished study as one HTML page.

    It needs no network: numbers, pictures, samples, cost and provenance.
    """
    from s3search.show.report import write_report

    if samples and no_samples:
        raise InvalidConfig("--samples and --no-samples were both given; leave one out")
    writable(output)
    url = storage_url(storage)
    if samples:
        announce_code(url, study)
    written = write_report(url, study, output, n_samples=samples)
    lines = [f"wrote {output}: {written.n_bytes / 1e6:.1f} MB"]
    if written.no_samples is not None and samples:
        lines.append(f"without samples. {written.no_samples}")
    answer(asdict(written), *lines, as_json=as_json)


def _launch(config: Any, *, on: SafeConsole, takeover: bool = False) -> Sequence[str]:
    """Runs the study; what the check before it warned of."""
    from s3search.show.terminal.progress import progress
    from s3search.study.database.engine import redacted

    where = redacted(config.storage.url)
    with resumable(where), progress(on) as report:
        return s3search.search(config, progress=report, takeover=takeover).warnings


def _conclude(config: Any, result: dict[str, Any], *command: str) -> None:
    """Says what came of a launch, where it is, and what to type next."""
    from s3search.show.terminal.verdict import next_lines, verdict_lines
    from s3search.study.database.engine import redacted

    url, named = config.storage.url, os.environ.get("S3SEARCH_STORAGE")
    where = "the database that $S3SEARCH_STORAGE names" if url == named else redacted(url)
    say("", *verdict_lines(result))
    say(*next_lines(where, command, is_default=url == storage_url(None)))


def _foretell(config: Any, *, as_json: bool) -> None:
    from s3search.run.launching import dry_run
    from s3search.show.terminal.forecast import forecast_lines

    found = dry_run(config)
    value = asdict(found) | {"minutes": sum(found.minutes.values())}
    answer(value, *forecast_lines(found), as_json=as_json)


def _status(url: str, name: str) -> dict[str, Any]:
    from s3search.study.database.store import open_study
    from s3search.study.results.frame import status_of

    with open_study(url, name) as store:
        return status_of(store)
