"""Search spaces: what a file says (`SpaceConfig`), and what is searched with it (`Problem`)."""

from s3search.search.space.config import MutationRates, SpaceConfig
from s3search.search.space.presets import load_space, parse_space, preset_folder, preset_names
from s3search.search.space.problem import Problem

__all__ = [
    "MutationRates",
    "Problem",
    "SpaceConfig",
    "load_space",
    "parse_space",
    "preset_folder",
    "preset_names",
]
