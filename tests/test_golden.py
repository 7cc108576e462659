"""Every golden case: what the published code made of an analytic model, we make too.

The folder is $S3SEARCH_GOLDEN, or the full set beside the repository with tests/golden.
"""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from s3search.errors import InvalidSchedule
from s3search.solvers.plan import Plan, compile_plan
from s3search.solvers.sample import check_process, run_plan
from s3search.solvers.step_noise import Draws, given
from tests.support.golden.cases import Case, Problem, case_files, problem_of, tensor
from tests.support.helpers import NoSchedule, Waits

_FILES = case_files()
_TRACE_DIGITS = 1e-5  # the trace is rounded to six decimals


@pytest.mark.parametrize("path", _FILES.values(), ids=_FILES.keys())
def test_golden_case(path: Path) -> None:
    case = json.loads(path.read_text())
    defect = case.get("upstream_defect")
    try:
        problem = problem_of(case)
    except Waits as missing:
        if defect:
            pytest.skip(f"published code is defective here: {defect}")
        pytest.skip(f"waits for Every solver: {case['family']}: {missing}")
    except NoSchedule as reason:
        pytest.skip(f"no schedule can do this: {case['family']}: {reason}")
    except InvalidSchedule as reason:
        if defect:
            pytest.skip(f"published code is defective here: {defect} ({reason})")
        raise
    plan = problem.plan
    if problem.schedule is not None:
        plan = compile_plan(problem.schedule, problem.statistics)
        assert plan.nfe == problem.schedule.nfe
    assert plan is not None
    draws = given(_noises(case, problem), plan.noisy_rows)
    end, calls = _run(problem, plan, problem.start_scale * tensor(case["x_start"]), draws)
    expected = tensor(case["x_end"])
    deviation = float((end - expected).abs().max() / expected.abs().max())
    tolerance = case.get("tolerance_exact_integral", case["tolerance"]["relative"])
    if defect:
        assert deviation > tolerance, f"the published defect is reproduced: {defect}"
        return
    assert len(calls) == plan.nfe == case["nfe"] - problem.unused_calls
    assert deviation <= tolerance, _first_difference(case, plan, calls)


def test_golden_folder_holds_cases() -> None:
    assert _FILES


def _noises(case: Case, problem: Problem) -> list[Tensor]:
    """The draws that the published code used, in its order."""
    draws = case.get("noises", ())
    used = [i for i, draw in enumerate(draws) if draw["first_seen"] is not None and draw["weight"]]
    sign = problem.sign_of_draws
    return [sign * tensor(draws[i]["values"]) for i in used if i not in problem.unused_draws]


def _run(problem: Problem, plan: Plan, x: Tensor, draws: Draws) -> tuple[Tensor, list[Tensor]]:
    """The final state, and the state at every call really made."""
    check_process(problem.denoiser, plan)
    calls: list[Tensor] = []

    def network(at: Tensor, t: Tensor) -> Tensor:
        calls.append(at.clone())
        return problem.denoiser(at, t)

    return run_plan(network, plan, x, draws), calls


def _first_difference(case: Case, plan: Plan, calls: list[Tensor]) -> str:
    """Where the trajectory leaves the published one, in y = x / alpha."""
    for i, (entry, row, state) in enumerate(
        zip(case["trace"], plan.evaluated, calls, strict=False)  # their unused calls come last
    ):
        if "state0" not in entry or not entry["alpha"]:
            continue
        theirs = tensor(entry["state0"]) / entry["alpha"]
        ours = state[0].flatten() / plan.levels[row].alpha
        if not torch.allclose(ours, theirs, rtol=_TRACE_DIGITS, atol=_TRACE_DIGITS):
            return f"call {i} at t = {plan.levels[row].t} is the first that differs"
    return "every call agrees, the last step does not"
