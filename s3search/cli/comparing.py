"""`compare A.json B.json`: two schedule files side by side."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from s3search.cli.output import OUT, print_json, say, writable
from s3search.errors import InvalidConfig

if TYPE_CHECKING:
    from s3search.schedules.schedule import Schedule

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
