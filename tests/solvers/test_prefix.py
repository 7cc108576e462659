"""Keys of network calls: equal where plans are alike up to a call, and nowhere else."""

from typing import Any

import pytest
import torch
from torch import Tensor

from s3search.evaluation.denoiser_cache import DenoiserCache
from s3search.processes import edm, vp_linear
from s3search.rules import NoiseKind, StepNoise
from s3search.schedules import published
from s3search.schedules.schedule import Schedule
from s3search.solvers.plan import compile_plan
from s3search.solvers.prefix import call_keys
from s3search.solvers.sample import sample, sample_population
from s3search.solvers.step_noise import of_seed
from tests.solvers.test_v3 import _ems, _schedule
from tests.support.helpers import gaussian, noise


def _keys(schedule: Schedule) -> tuple[str | None, ...]:
    return call_keys(compile_plan(schedule))


def _moved(schedule: Schedule, i: int) -> Schedule:
    times = list(schedule.times)
    times[i] *= 1.01
    return Schedule(process=schedule.process, times=times, steps=schedule.steps)


@pytest.mark.parametrize("i", [1, 2, 3, 4])
def test_plans_share_the_calls_before_their_first_difference(i: int) -> None:
    schedule = published.unipc(edm(), nfe=5, order=3)
    same = [a == b for a, b in zip(_keys(schedule), _keys(_moved(schedule, i)), strict=True)]
    assert same == [j < i for j in range(5)]


def test_another_solver_or_level_shares_nothing_but_what_is_equal() -> None:
    two, three = (published.dpmpp_2m(edm(), nfe=5), published.unipc(edm(), nfe=5, order=3))
    assert _keys(two)[0] == _keys(three)[0]
    assert _keys(two)[-1] != _keys(three)[-1]
    assert not set(_keys(two)) & set(_keys(_moved(two, 0)))
    told = published.with_network_times(two, [two.times[0] * 0.9, *two.times[1:5]])
    assert not set(_keys(two)) & set(_keys(told))


def test_calls_of_one_key_are_the_same_states_at_the_same_time() -> None:
    inner, calls = gaussian(edm()), list[tuple[Tensor, Tensor]]()

    class Noted:
        process, sample_shape = inner.process, inner.sample_shape

        def __call__(self, x: Tensor, t: Tensor, **condition: Any) -> Tensor:
            calls.append((x, t))
            return inner(x, t)

    seen: dict[str, tuple[Tensor, Tensor]] = {}
    n_calls = 0
    for schedule in published.baselines(edm(), 5).values():
        plan = compile_plan(schedule)
        calls.clear()
        sample(Noted(), plan, noise())
        for key, (x, t) in zip(call_keys(plan), calls, strict=True):
            assert key is not None
            n_calls += 1
            first = seen.setdefault(key, (x, t))
            assert torch.equal(first[0], x)
            assert torch.equal(first[1], t)
    assert len(seen) < 0.8 * n_calls


def _with_noise(schedule: Schedule, i: int, amount: float, scale: float = 1.0) -> Schedule:
    noise = StepNoise(kind=NoiseKind.GAMMA, amount=amount, scale=scale)
    steps = list(schedule.steps)
    steps[i] = steps[i].model_copy(update={"noise": noise})
    return schedule.changed(steps=steps)


def test_equal_noise_is_shared_and_other_noise_is_not() -> None:
    noisy = _with_noise(published.dpmpp_2m(edm(), nfe=5), 1, 0.4)
    changes = {
        "later step": (_moved(noisy, 4), 4),
        "later noise": (_with_noise(noisy, 3, 0.2), 4),
        "amount": (_with_noise(noisy, 1, 0.41), 2),
        "factor": (_with_noise(noisy, 1, 0.4, 1.01), 2),
        "none": (published.dpmpp_2m(edm(), nfe=5), 2),
        "earlier noise": (_with_noise(noisy, 0, 0.1), 1),
    }
    for name, (other, n_shared) in changes.items():
        same = [a == b for a, b in zip(_keys(noisy), _keys(other), strict=True)]
        assert same == [j < n_shared for j in range(5)], name


def test_calls_after_equal_noise_are_the_same_states() -> None:
    cache, denoiser = DenoiserCache(2**20), gaussian(edm())
    first = _with_noise(published.dpmpp_2m(edm(), nfe=5), 1, 0.4)
    plans = [compile_plan(each) for each in (first, _moved(first, 4), _with_noise(first, 1, 0.5))]
    alone = [sample(denoiser, plan, noise()) for plan in plans]
    for _ in range(2):  # the second time from what was kept
        for plan, expected in zip(plans, alone, strict=True):
            (found,) = sample_population(denoiser, [plan], noise(), cache, "", of_seed(0))
            assert torch.equal(found, expected)


def test_weights_per_pixel_are_not_compared() -> None:
    ems = _ems()
    keys = call_keys(compile_plan(_schedule(ems), ems))
    assert keys[0] is not None
    assert set(keys[1:]) == {None}


def test_the_process_is_the_networks_own_so_keys_do_not_name_it() -> None:
    assert len(set(_keys(published.ddim(vp_linear(), nfe=4)))) == 4
