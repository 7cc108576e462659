"""The executor for other runtimes, as its file stands: on lists, arrays and tensors."""

import ast
import json
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given

from s3search.formats.exporters.runtime import run_plan as module
from s3search.formats.exporters.schedule_json import export_dict
from s3search.processes import edm, vp_linear
from s3search.rules import StepNoise
from s3search.schedules import published
from s3search.schedules.schedule import Schedule
from s3search.solvers.plan import compile_plan
from s3search.solvers.sample import sample
from tests.support.helpers import EXAMPLES, gaussian, max_abs, noise, schedules

_FILE = Path(module.__file__)
_RUN = runpy.run_path(str(_FILE))["run_plan"]


def _plan(schedule: Schedule) -> dict[str, Any]:
    plan: dict[str, Any] = json.loads(json.dumps(export_dict(schedule)))["plan"]
    return plan


def test_the_file_needs_nothing_but_python() -> None:
    tree = ast.parse(_FILE.read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert [getattr(node, "module", None) for node in imports] == ["typing"]
    assert "typing" in sys.stdlib_module_names


@EXAMPLES
@given(schedule=schedules())
def test_tensors_come_out_as_from_our_loop(schedule: Schedule) -> None:
    denoiser = gaussian(schedule.process)
    image = schedule.start.image
    found = _RUN(
        _plan(schedule),
        lambda x, t: denoiser(x, x.new_full((len(x),), t)),
        noise(),
        None if image is None else noise().new_tensor(image),
    )
    expected = sample(denoiser, compile_plan(schedule), noise())
    assert max_abs(found - expected) <= 1e-9 * (1 + max_abs(expected))


def test_lists_and_arrays_come_out_alike() -> None:
    schedule = published.unipc(vp_linear(), nfe=5, order=3)

    def model(x: Any, t: float) -> Any:
        alpha, sigma = schedule.process.alpha(t), schedule.process.sigma(t)
        k = alpha * 0.5 / (alpha**2 * 0.5 + sigma**2)
        return [model(part, t) for part in x] if isinstance(x, list) else k * x

    start = np.array([[1.0, -2.0, 0.3], [0.1, 0.0, 4.0]])
    plan = _plan(schedule)
    array = _RUN(plan, model, start)
    assert isinstance(array, np.ndarray)
    nested = _RUN(plan, model, start.tolist())
    assert np.allclose(array, nested, rtol=1e-12)
    assert _RUN(plan, model, 1.0) == pytest.approx(array[0, 0], rel=1e-12)
    assert np.allclose(array, torch.as_tensor(_RUN(plan, model, torch.tensor(start))), rtol=1e-12)


def _stochastic() -> Schedule:
    base = published.dpmpp_2m(edm(), nfe=4)
    noise = StepNoise(amount=0.6, scale=1.01)
    steps = [step.model_copy(update={"noise": noise}) for step in base.steps]
    return base.changed(steps=(*steps[:-1], base.steps[-1]))


def test_noise_of_steps_is_drawn_in_turn() -> None:
    schedule = _stochastic()
    plan, denoiser = compile_plan(schedule), gaussian(edm())
    drawn = torch.randn((3, *noise().shape), generator=torch.Generator().manual_seed(2)).double()
    found = _RUN(
        _plan(schedule),
        lambda x, t: denoiser(x, x.new_full((len(x),), t)),
        noise(),
        step_noise=drawn,
    )
    expected = sample(denoiser, plan, noise(), step_noise=drawn)
    assert max_abs(found - expected) <= 1e-9 * (1 + max_abs(expected))
    assert max_abs(expected - sample(denoiser, plan, noise(), step_noise=2 * drawn)) > 0.1
    numbers = _RUN(_plan(schedule), lambda x, t: 0.5 * x, 1.0, step_noise=iter([0.1, -0.2, 2.0]))
    lists = _RUN(
        _plan(schedule),
        lambda x, t: [0.5 * x[0]],
        [1.0],
        step_noise=([draw] for draw in (0.1, -0.2, 2.0)),
    )
    assert lists == [numbers]


def test_noise_that_is_not_given_is_asked_for() -> None:
    for given_noise in ((), [0.1, 0.2]):
        with pytest.raises(ValueError, match="draws noise 3 times: pass step_noise"):
            _RUN(_plan(_stochastic()), lambda x, t: 0.5 * x, 1.0, step_noise=given_noise)


def test_what_it_cannot_run_is_refused() -> None:
    plan = _plan(published.ddim(edm(), nfe=3))
    plan["rows"][1]["offset"] = [[[0.1]]]
    with pytest.raises(ValueError, match="weights per pixel"):
        _RUN(plan, None, 1.0)
    with pytest.raises(ValueError, match="Gaussian jump"):
        _RUN({**_plan(published.ddim(edm(), nfe=3)), "start_map": {}}, None, 1.0)
