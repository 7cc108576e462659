"""The wire format with its compiled table, which any runtime can execute."""

import json
from pathlib import Path
from typing import Any

from s3search.files import write_text
from s3search.formats.exporters.report import LossReport
from s3search.formats.exporters.request import Exported, ExportRequest
from s3search.rules import EmsStatistics
from s3search.schedules.schedule import ModelPatch, Schedule
from s3search.solvers.plan import compile_plan


def export_dict(schedule: Schedule, ems: EmsStatistics | None = None) -> dict[str, Any]:
    """The wire format with the compiled table; ``ems`` are the statistics that the schedule names,
    if it names any.
    """
    return {**schedule.to_dict(), "plan": compile_plan(schedule, ems).to_dict()}


def save_export(schedule: Schedule, path: Path, ems: EmsStatistics | None = None) -> None:
    """Writes a schedule with its compiled table and provenance."""
    write_text(path, json.dumps(export_dict(schedule, ems), indent=1, allow_nan=False) + "\n")


def write_json(request: ExportRequest) -> Exported:
    """Writes the file; its report says what ``run_plan.py`` alone would leave out."""
    schedule = request.schedule
    save_export(schedule, request.output, request.statistics)
    patch = schedule.model_patch or ModelPatch()
    left = [
        ("a Gaussian jump (plan.start_map)", schedule.start.jump),
        ("weights per pixel of DPM-Solver-v3 (plan.rows[].offset)", schedule.statistics),
    ]
    patches = [
        (
            f"model_patch.{name}: a table says nothing of the network; apply it around the model",
            getattr(patch, name),
        )
        for name in ("guidance_scale", "skip_layers", "skip_scale")
    ]
    refused = [f"run_plan.py refuses {what}" for what, value in left if value is not None]
    refused += [what for what, value in patches if value is not None]
    return Exported(
        files=(request.output,),
        report=LossReport(
            exact=(
                "schedule and compiled table, in float64; image-to-image needs s3search",
                *(["noise of the steps, as step_noise"] if schedule.is_stochastic else []),
            ),
            refused=tuple(refused),
        ),
    )
