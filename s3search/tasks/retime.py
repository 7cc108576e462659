"""A schedule for another number of calls, another process or other rules: what
`s3search tools retime` does.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from s3search.errors import InvalidConfig, InvalidSchedule
from s3search.evaluation.plugins import MODELS, call_plugin, importable_from
from s3search.formats.importers.solvers import solved
from s3search.processes import NoiseProcess
from s3search.schedules.retime import retime
from s3search.schedules.schedule import Schedule
from s3search.schedules.stretch import Stretched, fitted, levels_with, with_nfe
from s3search.study.file.config import StudyConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """Where to; None leaves that alone."""

    nfe: int | None = None
    process: NoiseProcess | None = None
    solver: str | None = None  # a published solver instead of the schedule's own steps
    fit: bool = False  # levels that the process does not have are moved into its range


def moved(schedule: Schedule, move: Move) -> Stretched:
    """The schedule there, with a note for everything that is exact or approximated; the notes and
    the old id are in its provenance.

    Raises `InvalidSchedule` for what cannot be moved, `InvalidConfig` for an unknown solver.
    """
    if move.nfe is None and move.process is None and move.solver is None:
        raise InvalidConfig(
            "nothing to do: give --nfe N, --process NAME, --study STUDY.toml or --solver NAME"
        )
    if move.fit and move.process is None:
        raise InvalidConfig("--fit needs the process to fit into: --process or --study")
    nfe = schedule.nfe if move.nfe is None else move.nfe
    made = with_nfe(schedule, nfe) if move.solver is None else _solved(schedule, nfe, move.solver)
    notes = list(made.notes)
    there = made.schedule
    if move.process is not None:
        if move.fit:
            fit = fitted(there, move.process)
            there, notes = fit.schedule, [*notes, *fit.notes]
        there = retime(there, move.process)
        notes.append(
            "exact: every level keeps its log SNR, so x / alpha takes the same trajectory for the "
            "same answers of the network"
        )
    origin = {"schedule_id": schedule.id, "nfe": schedule.nfe, "notes": notes}
    return Stretched(schedule=there.changed(provenance={"retimed": origin}), notes=tuple(notes))


def process_of_study(config: StudyConfig) -> NoiseProcess:
    """The process of the study's model, which is loaded for it."""
    importable_from(config.import_folders, (config.model.loader,))
    model = call_plugin("model.loader", config.model.loader, config.model.options, MODELS)
    found: NoiseProcess = model.process
    return found


def _solved(schedule: Schedule, nfe: int, solver: str) -> Stretched:
    """A published solver on the levels of the schedule."""
    for n in range(1, nfe + 2):
        times = _levels(schedule, n)
        made = None if times is None else solved(schedule.process, times, solver)
        if made is not None and made.nfe == nfe:
            return Stretched(schedule=made, notes=_notes(schedule, made, solver))
    raise InvalidSchedule(
        f"--solver {solver}: no number of its steps on these levels makes {nfe} network calls; "
        "ask for another --nfe"
    )


def _levels(schedule: Schedule, n: int) -> Sequence[float] | None:
    try:
        return levels_with(schedule, n)
    except InvalidSchedule:
        return None


def _notes(old: Schedule, new: Schedule, solver: str) -> tuple[str, ...]:
    same = len(new.times) == len(old.times)
    levels = (
        "exact: the levels"
        if same
        else f"approximated: the levels of {new.n_steps} steps are interpolated linearly in log "
        f"SNR along those of {old.n_steps}; the first and the last one are exact"
    )
    notes = [levels, f"approximated: {solver} takes the place of the schedule's own steps"]
    if old.model_patch is not None or old.start != new.start:
        notes.append("left out: the schedule's own start and its change of the model")
    return tuple(notes)
