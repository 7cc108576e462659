"""The operators of mutation, by the name of their rate, and how likely each is in a space."""

from collections.abc import Callable

import numpy as np

from s3search.search.edit.draft import Draft
from s3search.search.edit.variation.frame import (
    change_end_rule,
    change_jump,
    change_network_time,
    change_start,
    move_end,
    move_step,
    move_times,
)
from s3search.search.edit.variation.steps import (
    change_compensation,
    change_corrector,
    change_estimation,
    change_noise,
    change_order,
    change_prediction,
    change_relaxation,
    change_solver,
    change_start_point,
    walks,
)
from s3search.search.space import MutationRates, Problem

Operator = Callable[[Problem, Draft, np.random.Generator], None]

_BY_RATE: dict[str, Operator] = {
    "times": move_times,
    "end": move_end,
    "move": move_step,
    "prediction": change_prediction,
    "order": change_order,
    "relaxation": change_relaxation,
    "estimation": change_estimation,
    "corrector": change_corrector,
    "solver": change_solver,
    "start_point": change_start_point,
    "compensation": change_compensation,
    "network_time": change_network_time,
    "jump": change_jump,
    "start": change_start,
    "end_rule": change_end_rule,
    "noise": change_noise,
}

assert set(_BY_RATE) == set(MutationRates.model_fields)


def operators_of(problem: Problem) -> tuple[list[Operator], list[float]]:
    """The operators that can change something here, and their probabilities."""
    space = problem.space
    single = {
        "prediction": len(problem.predictions) < 2,
        "order": len(space.orders) < 2,
        "relaxation": len(space.relaxations) == 1 and not walks(space.relaxations[0]),
        "estimation": not space.low_order_estimates or max(space.orders) < 3,
        "corrector": space.correctors == (None,),
        "solver": len(problem.listed or space.solvers) < 2,
        "start_point": len(space.start_points) < 2,
        "compensation": not space.compensations,
        "network_time": space.network_shift == 0.0,
        "jump": problem.jump is None or space.jump_sigma is None,
        "start": len(space.starts) < 2,
        "end_rule": len(space.end_rules) < 2,
        "noise": not space.noise.is_on,
    }
    chosen = [
        (operator, getattr(space.mutation, name))
        for name, operator in _BY_RATE.items()
        if getattr(space.mutation, name) > 0 and not single.get(name, False)
    ]
    if not chosen:
        chosen = [(move_times, 1.0), (move_end, 1.0)]
    total = sum(rate for _, rate in chosen)
    return [operator for operator, _ in chosen], [rate / total for _, rate in chosen]
