"""s3search: find the solver schedule that gives a diffusion or flow model its best images at few
network calls.
"""

import sys
from types import ModuleType

from s3search.evaluation.code_version import CODE_VERSION
from s3search.run.front import evaluate, search
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
    "published",
    "sample",
    "search",
]
__version__ = CODE_VERSION


class _Package(ModuleType):
    """The package, whose ``search`` is the function: importing its room of that name binds the
    room to the package, as importing any module does, and that is left out here.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if name != "search" or not isinstance(value, ModuleType):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
