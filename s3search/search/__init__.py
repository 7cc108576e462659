"""Pure search: spaces, variation and proposers; randomness is a generator passed in."""

from s3search.search.algorithms.autodiffusion import AutoDiffusion
from s3search.search.algorithms.evolution import (
    Evolution,
    EvolutionSettings,
    RandomSearch,
    distinct,
)
from s3search.search.algorithms.usf import UsfEvolution
from s3search.search.edit.draft import problem, random_schedule
from s3search.search.edit.extend_nfe import padded
from s3search.search.edit.variation import crossover, migrate, mutate
from s3search.search.finish import (
    Candidate,
    Chosen,
    ReusableHoldout,
    choose_finalist,
    monotone_by_nfe,
)
from s3search.search.proposer import Observation, Proposal, Proposer, plan_key, schedule_key
from s3search.search.space.space import SearchSpace, load_space, parse_space, preset_names

__all__ = [
    "AutoDiffusion",
    "Candidate",
    "Chosen",
    "Evolution",
    "EvolutionSettings",
    "Observation",
    "Proposal",
    "Proposer",
    "RandomSearch",
    "ReusableHoldout",
    "SearchSpace",
    "UsfEvolution",
    "choose_finalist",
    "crossover",
    "distinct",
    "load_space",
    "migrate",
    "monotone_by_nfe",
    "mutate",
    "padded",
    "parse_space",
    "plan_key",
    "preset_names",
    "problem",
    "random_schedule",
    "schedule_key",
]
