"""s3search: find the solver schedule that gives a diffusion or flow model its best images at few
network calls.
"""

import sys
from typing import TYPE_CHECKING

from s3search.evaluation.code_version import CODE_VERSION
from s3search.run.front import FrontPackage, evaluate, search

if TYPE_CHECKING:
    from s3search import models, processes
    from s3search.schedules import published
    from s3search.schedules.schedule import Schedule
    from s3search.solvers.plan import Plan, compile_plan, compile_plans
    from s3search.solvers.sample import sample

__all__ = [
    "Plan",
    "Schedule",
    "compile_plan",
    "compile_plans",
    "evaluate",
    "models",
    "processes",
    "published",
    "sample",
    "search",
]
__version__ = CODE_VERSION

sys.modules[__name__].__class__ = FrontPackage  # which imports the rest when asked
