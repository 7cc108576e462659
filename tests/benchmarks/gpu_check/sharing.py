"""Two Ray workers that share a GPU, each with half of it."""

import functools
import time
from collections.abc import Iterator, Sequence

from s3search.cluster import open_pool
from s3search.cluster.asking import Pool
from s3search.cluster.pool import Task
from s3search.evaluation.evaluator import Evaluator
from s3search.search.questions import Measure, Measurement
from tests.benchmarks.gpu_check.setting import Row, Setting, Verdict, value_of

_WORKERS = 2
_PATIENCE = 120.0  # seconds for the last worker to be there
_CLOSE = 1e-3  # of a distance: other batches add up in another order


def two_workers(setting: Setting) -> Iterator[Row]:
    """Their answers beside those of this process."""
    questions = [setting.question() for _ in range(2 * _WORKERS)]
    spec = setting.spec(batch_size=setting.size.n_images)
    alone = Evaluator(spec)
    wanted = {question.key: value_of(alone, question) for question in questions}
    del alone
    share = 1.0 / _WORKERS if setting.is_gpu else 0.0
    make, found, workers = functools.partial(Evaluator, spec), dict[str, Measurement](), set[str]()
    with open_pool("local", make, _WORKERS, share, threads_per_worker=1) as pool:
        for key, answer, worker in _answers(pool, questions):
            found[key] = answer
            workers.add(worker)
    off = max(abs((found[key].estimate or 0.0) / value - 1.0) for key, value in wanted.items())
    devices = {str(each.device).partition(":")[0] for each in found.values()}
    is_right = off < _CLOSE and len(workers) == _WORKERS and devices == {setting.device.type}
    yield Row(
        check=f"{_WORKERS} Ray workers, gpus_per_worker = {share:g}",
        verdict=Verdict.PASS if is_right else Verdict.FAIL,
        found=f"{len(workers)} processes on {', '.join(devices)} answered {len(found)} questions",
        why=f"their distances differ from this process's by {off:.1e}"
        + ("" if setting.is_gpu else "; no GPU to share"),
        numbers={"workers": len(workers), "off": off},
    )


def _answers(pool: Pool, questions: Sequence[Measure]) -> Iterator[tuple[str, Measurement, str]]:
    """Name, answer and worker of each question; they are asked again until every worker has
    answered one, since one may be done with all before another is there.
    """
    waiting, workers, n_asked = [*questions], set[str](), 0
    latest = time.monotonic() + _PATIENCE
    while waiting or pool.n_pending:
        while waiting and pool.has_room:
            question = waiting.pop()
            pool.submit(Task(id=f"{n_asked} {question.key}", request=question))
            n_asked += 1
        for outcome in pool.collect():
            assert isinstance(outcome.reply, Measurement), outcome.error
            workers.add(outcome.worker)
            yield outcome.reply.question.key, outcome.reply, outcome.worker
        if not waiting and len(workers) < _WORKERS and time.monotonic() < latest:
            waiting = [questions[0]] if pool.n_pending < _WORKERS else []
