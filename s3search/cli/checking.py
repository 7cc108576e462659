"""The command that checks a file: a schedule's table, or all that a study names."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from s3search.cli.options import Address, AsJson, Sets
from s3search.cli.output import print_json, say
from s3search.cli.settings import config_of
from s3search.files import json_of


def check(
    file: Annotated[Path, typer.Argument(help="A schedule (.json) or a study file (.toml).")],
    ems: Annotated[
        Path | None, typer.Option("--ems", help="The EMS file that the schedule names.")
    ] = None,
    no_load: Annotated[
        bool, typer.Option("--no-load", help="Of a study only what its file says.")
    ] = False,
    address: Address = "inline",
    sets: Sets = None,
    as_json: AsJson = False,
) -> None:
    """Check a schedule, or a study and the model that it names."""
    found = (
        _study(file, address, sets, loads=not no_load)
        if file.suffix == ".toml"
        else _schedule(file, ems)
    )
    checks = found.get("checks", [])
    is_valid = all(each["status"] != "error" for each in checks)
    if as_json:
        print_json({"valid": is_valid, **found})
    else:
        for each in checks:
            line = f"{each['status']:8}{each['check']}: {each['message']}"
            say(line)
        names = ("kind", "name", "id", "nfe")
        details = ", ".join(f"{key} {found[key]}" for key in names if key in found)
        words = "valid" if is_valid else "wrong"
        say(f"{file}: {words} ({details})")
    if not is_valid:
        raise typer.Exit(2)


def _study(
    file: Path, address: str | None, sets: list[str] | None, *, loads: bool
) -> dict[str, Any]:
    from s3search.tasks.checking import check_study

    config = config_of(file, None, address, sets)
    checks = [asdict(each) for each in check_study(config, loads=loads)]
    return {"file": str(file), "kind": "study", "name": config.study.name, "checks": checks}


def _schedule(file: Path, ems: Path | None) -> dict[str, Any]:
    from s3search.rules import EmsStatistics
    from s3search.schedules.schedule import Schedule
    from s3search.solvers.plan import check_table

    loaded = Schedule.load(file)
    table = json_of(file).get("plan")
    check_table(loaded, table, None if ems is None else EmsStatistics.load(ems))
    return {"file": str(file), "kind": "schedule", "id": loaded.id, "nfe": loaded.nfe}
