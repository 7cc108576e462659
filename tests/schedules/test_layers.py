"""What schedules leave out of the network, and what that costs."""

import pytest

from s3search.processes import edm
from s3search.schedules import published
from s3search.schedules.layers import (
    Layer,
    Layers,
    lists_of,
    skips_layers,
    starting_steps,
    whole,
    with_skipped,
)
from s3search.schedules.schedule import Schedule

LAYERS = Layers(
    multiply_adds=100,
    layers=(
        Layer(name="a", kind="Outer", shape=(1, 8), multiply_adds=40, inside=None),
        Layer(name="a.0", kind="Inner", shape=(1, 8), multiply_adds=15, inside=0),
        Layer(name="a.1", kind="Inner", shape=(1, 8), multiply_adds=20, inside=0),
        Layer(name="b", kind="Outer", shape=(1, 8), multiply_adds=30, inside=None),
    ),
)
PLAIN = published.ddim(edm(), nfe=3)


def test_a_block_inside_another_is_not_paid_for_twice() -> None:
    assert LAYERS.call_cost(()) == 1.0
    assert LAYERS.call_cost((1, 2)) == pytest.approx(0.65)
    assert LAYERS.call_cost((0, 1, 2)) == pytest.approx(0.6)
    assert LAYERS.call_cost(range(4)) == pytest.approx(0.3)
    assert LAYERS.outermost((3, 1, 0)) == (0, 3)


def test_a_schedule_costs_what_its_calls_cost() -> None:
    assert LAYERS.cost(PLAIN) == 3.0
    assert LAYERS.cost(with_skipped(PLAIN, [(), (1,), (3, 0)])) == pytest.approx(2.15)
    assert LAYERS.cost(published.heun(edm(), nfe=5)) == 5.0


def test_lists_are_kept_with_the_rest_of_the_patch_and_travel_in_the_json() -> None:
    guided = published.with_guidance(PLAIN, [1.0, 2.0, 1.0])
    patched = with_skipped(guided, [(), (3, 1, 3), ()])
    assert lists_of(patched) == ((), (1, 3), ())
    assert skips_layers(patched) and not skips_layers(guided)
    assert Schedule.from_dict(patched.to_dict()) == patched
    assert patched.to_dict()["model_patch"]["skip_layers"] == [[], [1, 3], []]
    assert whole(patched) == guided
    assert whole(with_skipped(PLAIN, [(0,), (), ()])) == PLAIN
    assert whole(PLAIN) is PLAIN
    assert starting_steps(PLAIN) == (0, 1, 2)
