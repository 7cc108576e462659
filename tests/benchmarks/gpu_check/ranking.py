"""Whether bfloat16 ranks schedules as float32 does."""

from collections.abc import Iterator

import numpy as np
from scipy.stats import spearmanr

from s3search.evaluation.spec import PRECISIONS
from s3search.processes import edm
from s3search.search.edit.draft import random_schedule
from s3search.search.space import Problem, load_space
from tests.benchmarks.gpu_check.setting import (
    NFE,
    NO_BFLOAT16,
    TOO_SMALL,
    Row,
    Setting,
    Verdict,
    value_of,
)

_LEAST = 0.9


def ranks(setting: Setting) -> Iterator[Row]:
    """Random schedules, each measured in both precisions on the same noise."""
    check = "ranks of bfloat16 and float32"
    if setting.size.is_timed and not setting.has_bfloat16:
        yield Row(check=check, verdict=Verdict.NOT_HERE, found="", why=NO_BFLOAT16)
        return
    rng, problem = np.random.default_rng(0), Problem(load_space("usf"), edm())
    size = setting.size
    schedules = [random_schedule(problem, NFE, rng) for _ in range(size.n_schedules)]
    found = {
        precision: [
            value_of(evaluator, setting.question(each, size.n_ranked)) for each in schedules
        ]
        for precision in PRECISIONS
        for evaluator in [setting.evaluator(precision=precision)]
    }
    full, short = (np.array(found[precision]) for precision in ("float32", "bfloat16"))
    correlation = float(spearmanr(full, short).statistic)
    verdict, why = Verdict.PASS, f"at least {_LEAST} is asked for"
    if not setting.size.is_timed:
        verdict, why = Verdict.NOT_HERE, TOO_SMALL
    elif correlation < _LEAST:
        verdict = Verdict.FAIL
    change = float(np.abs(short / full - 1.0).max())
    yield Row(
        check=check,
        verdict=verdict,
        found=f"Spearman {correlation:.3f} over {len(full)} schedules of {size.n_ranked} images; "
        f"distances change by {change:.1%} at most",
        why=why,
        numbers={"spearman": correlation, "change": change},
    )
