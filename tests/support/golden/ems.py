"""Golden cases with EMS statistics: USF's v3 steps and DPM-Solver-v3."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from s3search.processes import NoiseProcess
from s3search.rules import EmsStatistics
from s3search.schedules import published
from s3search.schedules.schedule import Schedule, StatisticsReference

Case = Mapping[str, Any]
USF_V3 = "dpmsolver_v3_prediction"


def statistics_of(case: Case, folder: Path) -> EmsStatistics | None:
    """The statistics that ``case`` names, None for most."""
    ems = case["solver"].get("ems")
    if ems is None:
        return None
    if case["solver"].get("constructor", {}).get("degenerated"):
        n = len(_read(folder / ems["ref"])["l"]) - 1
        return EmsStatistics.degenerate(ems["lambda_start"], ems["lambda_end"], n)
    data = _read(folder / ems["ref"])
    return EmsStatistics(
        lam_start=ems["lambda_start"],
        lam_end=ems["lambda_end"],
        l=np.array(data["l"]),
        s=np.array(data["s"]),
        b=np.array(data["b"]),
    )


def reference_of(case: Case, folder: Path) -> StatisticsReference | None:
    """The name of the case's statistics, as a schedule holds it."""
    ems = statistics_of(case, folder)
    return None if ems is None else StatisticsReference(digest=ems.digest)


def dpm_solver_v3(
    case: Case, process: NoiseProcess, times: Sequence[float], folder: Path
) -> Schedule:
    """The official solver on the case's grid, whose times are nodes."""
    ems, arguments = statistics_of(case, folder), dict(case["solver"]["sample"])
    assert ems is not None
    nodes = [ems.nearest_node(process.lam(t)) for t in times]
    if nodes != case["solver"]["ems"]["node_index"]:
        raise ValueError(f"the case's times are at nodes {case['solver']['ems']['node_index']}")
    is_half = arguments.pop("half", False)
    steps = published.dpm_solver_v3_steps(
        len(times) - 1,
        n_corrected=published.corrected_by_half(process, times) if is_half else None,
        **arguments,
    )
    reference = StatisticsReference(digest=ems.digest)
    return published.on_times(process, times, steps, statistics=reference)


def _read(path: Path) -> Any:
    return json.loads(path.read_text())
