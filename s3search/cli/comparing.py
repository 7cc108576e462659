"""Comparisons: a study's found schedules beside the published, or two schedule files."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from s3search.cli.announcing import announce_code
from s3search.cli.output import ERR, OUT, print_json, say, writable
from s3search.errors import InvalidConfig

if TYPE_CHECKING:
    from s3search.schedules.schedule import Schedule

GRID = "--grid"
"""What is missing where samples have no picture."""

_OF_A_STUDY = ("schedulers", "grid", "address", "storage")


def are_files(study: str, other: str | None) -> bool:
    """Whether `compare` was given two schedule files, not a study; raises `InvalidConfig` for
    anything in between.
    """
    if other is None:
        if not _is_json(study):
            return False
        found = f"found the file {study!r} alone"
    else:
        files = [name for name in (study, other) if _is_json(name) or Path(name).is_file()]
        if len(files) == 2:
            return True
        rest = next(name for name in (study, other) if name not in files)
        found = (
            f"found the file {files[0]!r} and {rest!r}, which is none"
            if files
            else f"found {study!r} and {other!r}, and no such files"
        )
    raise InvalidConfig(
        f"compare takes one study's name or two schedule files, {found}; "
        "`s3search export STUDY -o FILE` writes a study's best schedule"
    )


def check_options(context: typer.Context, *, files: bool) -> None:
    """Raises for an option of `compare` that what it was given has no use for."""
    for name in _OF_A_STUDY if files else ("picture",):
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            needs = "a study's name" if files else "two schedule files"
            raise InvalidConfig(f"--{name} goes with {needs}; leave it out")


def compare_files(first: str, second: str, picture: Path | None, *, as_json: bool) -> None:
    """Prints, and draws where asked, how two schedules differ."""
    from s3search.schedules.schedule import Schedule
    from s3search.show.pictures import compare_schedules, comparison_drawing, draw_comparison

    names = (first, second)
    schedules = (Schedule.load(first), Schedule.load(second))
    if picture is not None:
        writable(picture)
        draw_comparison(schedules, _letters(names), picture)
    found = compare_schedules(*schedules)
    if as_json:
        drawn = {} if picture is None else {"picture": str(picture)}
        print_json(_plain(found, schedules, names) | drawn)
        return
    OUT.print(comparison_drawing(found, schedules, names))
    if picture is not None:
        say(f"wrote {picture}")


def comparison(url: str, name: str) -> dict[str, Any]:
    """All that a study's comparison says, in plain data."""
    from s3search.study.database.store import open_study
    from s3search.study.results.comparison import comparison_of

    with open_study(url, name) as store:
        return comparison_of(store)


def print_comparison(found: dict[str, Any]) -> None:
    """Prints found beside published; raises `InvalidConfig` where nothing is validated."""
    from s3search.show.terminal.comparison import comparison_lines, comparison_table

    _check_validated(found)
    OUT.print(comparison_table(found))
    say(*comparison_lines(found))


def extended(
    url: str, name: str, address: str | None, grid: Path | None, *, schedulers: bool, quiet: bool
) -> dict[str, str]:
    """Measures and draws what `compare` was asked for; what there is not, and why: schedulers,
    and the grid of samples that have no picture.
    """
    if not schedulers and grid is None:
        return {}
    from s3search.cluster.asking import described
    from s3search.run.launching import validate_schedulers, workers
    from s3search.show.pictures import no_pictures
    from s3search.show.pictures.grids import draw_comparison
    from s3search.show.terminal.progress import progress
    from s3search.study.database.store import open_study

    _check_validated(comparison(url, name))
    announce_code(url, name)
    missing: dict[str, str] = {}
    with open_study(url, name) as store:
        if schedulers:
            store.hold()  # before workers start in vain
        cluster = store.config.cluster
        if address is not None:
            cluster = cluster.model_copy(update={"address": address})
        with workers(store.config.model_copy(update={"cluster": cluster})) as pool:
            if schedulers:
                with progress(ERR if quiet else OUT) as report:
                    missing = validate_schedulers(store, pool, report)
            if grid is not None and not draw_comparison(store, pool, grid):
                missing[GRID] = str(no_pictures(described(pool).image_shape))
    return missing


def check_asked(url: str, name: str, *, is_asked: bool) -> None:
    """Raises where images would be made by code that nobody asked for."""
    from s3search.study.database.store import open_study
    from s3search.study.file.named_code import code_sentence

    if is_asked:
        return
    with open_study(url, name) as store:
        said = code_sentence(store.config, will=False)
    raise InvalidConfig(
        f"--grid makes images with the study's model; {said}; add --samples where you trust that"
    )


def _check_validated(found: dict[str, Any]) -> None:
    name = found["study"]
    if not found["rows"]:
        if found["vetoed"]:
            raise InvalidConfig(
                f"study {name!r} has no validated schedule that is not vetoed (it is "
                f"{found['state']}); `s3search veto {name}` lists the vetoes"
            )
        raise InvalidConfig(
            f"study {name!r} has no validated schedule yet (it is {found['state']}); "
            "run `s3search launch` to its end first"
        )


def _is_json(name: str) -> bool:
    return name.lower().endswith(".json")


def _letters(names: tuple[str, str]) -> tuple[str, str]:
    """What fits beside a graph."""
    first, second = (Path(name).stem[:24] for name in names)
    return f"A {first}", f"B {second}"


def _plain(found: Any, schedules: "tuple[Schedule, Schedule]", names: tuple[str, str]) -> Any:
    """Plain data; null where a lam is infinite."""
    return {
        "same": found.same,
        "schedules": [
            {"file": name, "id": own.id, "nfe": own.nfe, "n_steps": own.n_steps}
            for name, own in zip(names, schedules, strict=True)
        ],
        "differs": list(found.elsewhere),
        "steps_that_differ": found.n_different_steps,
        "lam_distance": {
            "largest": found.largest,
            "largest_at": found.largest_at,
            "mean": found.mean,
        },
        "times": [
            {
                "index": pair.index,
                "is_same": pair.is_same,
                "step_differs": list(pair.step_differences),
                "of_each": [
                    None if line is None else _line(line, own)
                    for line, own in zip(pair.lines, schedules, strict=True)
                ],
            }
            for pair in found.pairs
        ],
    }


def _line(line: Any, schedule: "Schedule") -> dict[str, Any]:
    from s3search.schedules.describing import step_sentence

    steps = schedule.steps[line.index : line.index + 1]  # none at the last time
    return {
        "t": line.t,
        "lam": line.lam if math.isfinite(line.lam) else None,
        "n_calls": line.n_calls,
        "network": line.network,
        "step": "".join(map(step_sentence, steps)),
    }
