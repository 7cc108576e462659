"""What a launch makes of ``[space] target``: settled before anything is written, and said once."""

import logging
from collections.abc import Mapping
from typing import Any

from s3search.errors import InvalidConfig
from s3search.evaluation.record import Description
from s3search.schedules.published.listed import LISTED_SOLVERS, listed_for
from s3search.schedules.schedule import StartKind
from s3search.search.space import SpaceConfig
from s3search.search.space.noise_ranges import NoiseRanges
from s3search.search.space.targets import ANY, OWN_PIPELINE, narrowed, runtime_of, settled_target
from s3search.study.database.store import stored_study
from s3search.study.file.config import StudyConfig

_log = logging.getLogger("s3search")


def aimed(config: StudyConfig, space: SpaceConfig, description: Description) -> SpaceConfig:
    """``space`` with its target settled; a study of an earlier release keeps what it had.

    Raises `InvalidConfig` where the study file asks for a target and for what that cannot express.
    A target that it does not ask for gives way.
    """
    said = config.space.options
    stored, preset = _stored_space(config)
    if stored is not None and "noise" not in stored and preset == config.space.preset:
        # that of a preset which has it by now
        space = space if "noise" in said else space.model_copy(update={"noise": NoiseRanges()})
    if stored is not None and "target" not in stored:
        kept = {"target": ANY, "data_bound": True}
        return space.model_copy(update={k: v for k, v in kept.items() if k not in said})
    names_mean = "starts" in said and StartKind.AVERAGE_X0 in space.starts
    settled = space.model_copy(
        update={
            "target": settled_target(space.target, description.pipeline),
            "data_bound": space.data_bound or names_mean,
        }
    )
    try:
        _, left_out = narrowed(settled, said)
    except InvalidConfig as error:
        if space.target is not None:
            raise
        _log.warning("%s: the winner may not run in the %s", error, settled.target)
        return settled.model_copy(update={"target": ANY})
    _check_solver(settled, description)
    if settled.target != ANY and left_out:
        fields = ", ".join(left_out)
        _log.warning("space: what %s cannot run is left out (%s)", settled.target, fields)
    return settled


def check_target(config: StudyConfig, space: SpaceConfig) -> None:
    """Raises `InvalidConfig` for a target that is none, and for what the one that the study file
    names cannot express, as far as that is known without the model.
    """
    if space.target not in (None, OWN_PIPELINE):
        settled_target(space.target, None)
        narrowed(space, config.space.options)
    if space.target != OWN_PIPELINE:
        _check_use_of_solver(space)


def _stored_space(config: StudyConfig) -> tuple[Mapping[str, Any] | None, str | None]:
    """The space of the study in the database, if there is one, and the preset it was made of."""
    with stored_study(config.storage.url, config.study.name) as store:
        return (None, None) if store is None else (store.space, store.config.space.preset)


def _check_solver(space: SpaceConfig, description: Description) -> None:
    """Raises `InvalidConfig` for a solver that has no use, or that no program runs here."""
    _check_use_of_solver(space)
    if not runtime_of(space.target).listed:
        return
    if space.solver is None:
        return
    known, solver = listed_for(description.process), LISTED_SOLVERS[space.solver]
    if solver not in known:
        raise InvalidConfig(
            f"space.solver: no program runs {space.solver!r} on a list of levels for a "
            f"{description.process.type!r} model; known: {', '.join(own.name for own in known)}"
        )
    if min(space.nfe, default=solver.fewest) < solver.fewest:
        raise InvalidConfig(
            f"space.solver: {space.solver!r} takes {solver.fewest} calls or more, asked for nfe = "
            f"{min(space.nfe)}; use another solver, or more calls"
        )


def _check_use_of_solver(space: SpaceConfig) -> None:
    if space.solver is not None and not runtime_of(space.target).listed:
        raise InvalidConfig(
            f"space.solver: {space.solver!r} is for target = 'sigmas', found {space.target!r}; "
            "leave it out, or set the target"
        )
