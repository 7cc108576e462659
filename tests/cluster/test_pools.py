"""The conformance suite over every pool, and the addresses that open them."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from s3search.cluster import InlinePool, Task, check_address, open_pool
from s3search.errors import InvalidConfig
from tests.suites.pool_suite import (
    AnyPool,
    OpenPool,
    PoolSuite,
    collect_some,
    make_squarer,
    run_all,
    start_ray,
)


class TestInlinePool(PoolSuite):
    @pytest.fixture
    def open_pool(self) -> Iterator[OpenPool]:
        with ExitStack() as stack:
            yield lambda make_worker: stack.enter_context(InlinePool(make_worker))

    def test_a_task_that_is_interrupted_stays_pending(self, open_pool: OpenPool) -> None:
        pool = open_pool(make_interrupted)
        pool.submit(Task(id="41", request=1))
        with pytest.raises(KeyboardInterrupt):
            pool.collect()
        assert pool.n_pending == 1


@pytest.fixture(scope="module")
def squarers() -> Iterator[AnyPool]:
    start_ray()
    with open_pool("local", make_squarer, 2, 0) as pool:
        yield pool


@pytest.mark.cluster
class TestRayPool(PoolSuite):
    @pytest.fixture
    def open_pool(self, squarers: AnyPool) -> Iterator[OpenPool]:
        with ExitStack() as stack:

            def opened(make_worker: Callable[[], Callable[[Any], Any]]) -> AnyPool:
                while squarers.n_pending:  # what the test before has left
                    squarers.collect()
                if make_worker is make_squarer and squarers.has_room:
                    return squarers  # saves the start of two processes
                return stack.enter_context(open_pool("local", make_worker, 1, 0))

            yield opened

    def test_collect_returns_nothing_when_the_time_is_up(self, open_pool: OpenPool) -> None:
        pool = open_pool(make_squarer)
        pool.submit(Task(id="asleep", request="sleep"))
        assert pool.collect(timeout=0.05) == []
        assert pool.n_pending == 1
        (outcome,) = collect_some(pool)
        assert outcome.reply == "slept"

    def test_both_workers_work_at_the_same_time(self, open_pool: OpenPool) -> None:
        pool = open_pool(make_squarer)
        tasks = [Task(id=f"nap-{i}", request="sleep") for i in range(4)]
        outcomes = run_all(pool, tasks).values()
        assert len({outcome.worker for outcome in outcomes}) == 2


def make_interrupted() -> Callable[[Any], Any]:
    def interrupt(request: Any) -> Any:
        raise KeyboardInterrupt

    return interrupt


def test_the_inline_address_opens_the_inline_pool() -> None:
    with open_pool("inline", make_squarer, 8, 1.0) as pool:
        assert isinstance(pool, InlinePool)
        assert pool.n_workers == 1


@pytest.mark.parametrize(
    "address",
    ["inline", "local", "auto", "ray://head.example:10001", "10.0.0.7:6379", "[::1]:6379"],
)
def test_an_address_of_a_known_kind_is_accepted(address: str) -> None:
    assert check_address(address) == address


@pytest.mark.parametrize(
    "address", ["", "locl", "ray://head", "head", "http://head:8265", "a b:1"]
)
def test_any_other_address_is_refused_with_the_kinds_that_exist(address: str) -> None:
    with pytest.raises(InvalidConfig, match=r"'inline'.*'local'.*'auto'.*ray://host:10001"):
        open_pool(address, make_squarer, 1, 0)
