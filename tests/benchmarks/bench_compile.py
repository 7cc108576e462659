"""Schedules per second: compiled one by one, as a batch, and scored by the Gaussian distance.

python -m tests.benchmarks.bench_compile [number of schedules]
"""

import sys
import time
from collections.abc import Callable

import numpy as np

from s3search.models.gaussian import gaussian_distance
from s3search.processes import edm
from s3search.schedules import published
from s3search.schedules.schedule import Schedule
from s3search.solvers.plan import compile_plan, compile_plans

_NFE = 8
_N_MODES = 64


def distinct_schedules(n: int) -> list[Schedule]:
    """n UniPC schedules on different times, as a search would propose them."""
    base = published.unipc(edm(), nfe=_NFE, order=3)
    random = np.random.default_rng(0)
    made = []
    for _ in range(n):
        factors = np.exp(random.normal(0.0, 0.02, _NFE - 1))
        inner = np.sort(np.array(base.times[1:-1]) * factors)[::-1]
        times = [base.times[0], *inner.tolist(), base.times[-1]]
        made.append(Schedule(process=base.process, times=times, steps=base.steps))
    return made


def rate(work: Callable[[], object], n: int) -> float:
    """Schedules per second of one run of ``work``."""
    begin = time.perf_counter()
    work()
    return n / (time.perf_counter() - begin)


def main(n: int) -> None:
    """Prints one line per way."""
    rates = {"constructed": rate(lambda: distinct_schedules(n), n)}
    made = distinct_schedules(n)
    rates["compiled one by one"] = rate(lambda: [compile_plan(one) for one in made], n)
    rates["compiled as a batch"] = rate(lambda: compile_plans(made), n)
    batch = compile_plans(made)
    mean, eigenvalues = np.zeros(_N_MODES), np.geomspace(1e-3, 4.0, _N_MODES)
    rates[f"scored at {_N_MODES} modes"] = rate(
        lambda: gaussian_distance(batch, mean, eigenvalues), n
    )
    sys.stdout.write(f"{n} schedules of {_NFE} steps, UniPC-3 with correctors\n")
    for name, value in rates.items():
        sys.stdout.write(f"{name:>24}: {value:10,.0f} per second\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
