"""Commands about models."""

from pathlib import Path
from typing import Annotated

import typer

from s3search.cli.options import AsJson, Sets, StudyFile
from s3search.cli.output import OUT, print_json, say
from s3search.errors import InvalidSchedule


def inspect_model(
    study: StudyFile,
    schedule: Annotated[
        Path | None, typer.Option("--schedule", help="Also what this schedule costs.")
    ] = None,
    sets: Sets = None,
    as_json: AsJson = False,
) -> None:
    """Show a study's model, and the blocks that may be left out."""
    from s3search.cli.settings import config_of
    from s3search.evaluation.inspection import inspect_model as inspected
    from s3search.schedules.schedule import Schedule
    from s3search.show.terminal.models import blocks_table, costs_table, inspection_lines

    loaded = None if schedule is None else Schedule.load(schedule)
    found = inspected(config_of(study, None, None, sets).evaluator_spec)
    try:
        calls = None if loaded is None else found.costs(loaded)
    except InvalidSchedule as error:
        raise InvalidSchedule(f"{schedule}: {error}") from error
    if as_json:
        printed = found.to_dict()
        if loaded is not None and calls is not None:
            printed["schedule"] = {
                "id": loaded.id,
                "nfe": loaded.nfe,
                "cost": sum(cost for _, cost in calls),
                "calls": [{"skipped": list(own), "cost": cost} for own, cost in calls],
            }
        print_json(printed)
        return
    say(*inspection_lines(found))
    blocks = blocks_table(found)
    if blocks is not None:
        OUT.print(blocks, highlight=False)
    if calls is not None:
        cost = sum(own for _, own in calls)
        OUT.print(f"{schedule}: {len(calls)} calls cost {cost:.3f} NFE", soft_wrap=True)
        OUT.print(costs_table(calls), highlight=False)
