"""Proxies that are wrong on a real network: noticed, left aside, and no harm done."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s3search.cluster import InlinePool
from s3search.evaluation.evaluator import Evaluator
from s3search.evaluation.record import Reply, Request
from s3search.processes import edm
from s3search.run.launching import space_of
from s3search.run.study_lab import StudyLab
from s3search.schedules.published import baselines
from s3search.schedules.schedule import Schedule
from s3search.search.algorithms.evolution import distinct
from s3search.search.algorithms.s3 import S3, S3Settings
from s3search.search.lab import Measured
from s3search.search.ladder import LadderRung
from s3search.search.predictor.surrogate import Guide
from s3search.study.database.store import create_or_resume
from s3search.study.file.config import StudyConfig, parse_config

SEEDS = list(distinct(baselines(edm(), 4)).values())[:40]

DIGITS_SEEDS = dict(list(distinct(baselines(edm(), 3)).items())[::4])


# -- the order of the seeds ----------------------------------------------------------------


class _Scores:
    """A lab that only scores: the Gaussian by rank in `SEEDS`, the mixture as it is told."""

    n_images = 80

    def __init__(self, mixture: Mapping[str, float]) -> None:
        self.asked: list[str] = []
        self.notes: list[tuple[str, Mapping[str, object]]] = []
        self._by_name = {
            "gaussian": {s.id: 1.0 + i for i, s in enumerate(SEEDS)},
            "mixture": mixture,
        }

    def scores(self, proxy: str, schedules: Sequence[Schedule]) -> Any:
        self.asked.append(proxy)
        return np.array([self._by_name[proxy][s.id] for s in schedules])

    def note(self, kind: str, content: Mapping[str, object]) -> None:
        self.notes.append((kind, content))


def _order_after(values: Mapping[str, float], mixture: Mapping[str, float]) -> list[int]:
    """The order of the last 16 seeds once every other one of the first 24 was measured."""
    free = (LadderRung.GAUSSIAN, LadderRung.MIXTURE)
    guide = Guide(lambda rung: rung in free, _Scores(mixture))
    first = SEEDS[:24]
    guide.tell([Measured(schedule=s, value=values[s.id], n_images=80) for s in first])
    return guide.order(SEEDS[24:])


def test_a_proxy_that_lies_no_longer_orders_what_is_left() -> None:
    rng = np.random.default_rng(0)
    values = {s.id: 1.0 + i for i, s in enumerate(SEEDS[::-1])}  # the Gaussian is all wrong
    noise = {s.id: float(rng.random()) for s in SEEDS}
    assert _order_after(values, noise) == list(range(16))
    assert _order_after(values, values) == list(range(15, -1, -1))


def test_two_proxies_count_by_how_they_ranked_what_was_measured() -> None:
    values = {s.id: 1.0 + i for i, s in enumerate(SEEDS)}
    rng = np.random.default_rng(0)
    rough = {i: value + 12.0 * float(rng.normal()) for i, value in values.items()}
    order = _order_after(values, rough)
    alone = np.argsort([rough[s.id] for s in SEEDS[24:]])
    assert np.corrcoef(order, range(16))[0, 1] > np.corrcoef(alone, range(16))[0, 1]


def test_a_proxy_without_any_score_is_asked_once_and_not_shown() -> None:
    """As the mixture for models of latents."""
    lab = _Scores({s.id: math.nan for s in SEEDS})
    guide = Guide(lambda rung: rung in (LadderRung.GAUSSIAN, LadderRung.MIXTURE), lab)
    assert guide.order(SEEDS[:24]) == list(range(24))
    measured = [Measured(schedule=s, value=1.0 + i, n_images=80) for i, s in enumerate(SEEDS)]
    guide.tell(measured)
    assert lab.asked == ["gaussian", "mixture", "gaussian"]
    guide.note_ladder("seeds", measured)
    (content,) = (content for kind, content in lab.notes if kind == "ladder")
    assert [rung["rung"] for rung in content["rungs"]] == ["gaussian"]  # type: ignore[attr-defined]


# -- whole searches on the digits ----------------------------------------------------------


class _Liar(StudyLab):
    """A lab whose free proxies say the opposite of what they found."""

    def scores(self, proxy: str, schedules: Sequence[Schedule]) -> Any:
        return 1.0 / super().scores(proxy, schedules)


@pytest.fixture(scope="module")
def digits() -> Evaluator:
    return Evaluator(_config(Path(), "loading").evaluator_spec)


def _config(folder: Path, name: str) -> StudyConfig:
    return parse_config(
        {
            "study": {"name": name},
            "model": {"loader": "digits"},
            "space": {"nfe": [3]},
            "metric": {"features": "digits"},
            "reference": {"images": "digits"},
            "search": {"evaluations": 80, "n_images": 40},
            "storage": {"url": f"sqlite:///{folder}/study.db"},
            "cluster": {"address": "inline"},
        }
    )


@dataclass(frozen=True)
class _Found:
    """The best distance, what was noted, and which seeds were measured, in their order."""

    best: float
    notes: dict[str, list[dict[str, Any]]]
    seeds: list[str]


def _searched(digits: Evaluator, config: StudyConfig, lab: type[StudyLab], *ladder: str) -> _Found:
    pool: InlinePool[Request, Reply] = InlinePool(lambda: digits)
    space = space_of(config).with_mean_image(digits.describe().mean_image)
    search = S3(
        space,
        digits.denoiser.process,
        nfe=[3],
        seed=0,
        seeds=DIGITS_SEEDS,
        evaluations=None,
        settings=S3Settings(ladder=tuple(LadderRung(name) for name in ladder)),
    )
    with create_or_resume(config, {}) as store:
        search.run(lab(store, pool, lambda _: None))
        results = [result.evaluation for result in store.search_results()]
        notes: dict[str, list[dict[str, Any]]] = {}
        for kind, content in store.notes():
            notes.setdefault(kind, []).append(content)
        return _Found(
            best=min(each.value for each in results if each is not None),
            notes=notes,
            seeds=[
                p.origin.removeprefix("baseline: ")
                for p in store.proposals()
                if p.origin.startswith("baseline")
            ],
        )


def test_on_the_digits_wrong_proxies_are_noticed_and_do_no_harm(
    digits: Evaluator, tmp_path: Path
) -> None:
    lied = _searched(digits, _config(tmp_path, "lied"), _Liar, "gaussian", "mixture", "predictor")
    alone = _searched(digits, _config(tmp_path, "alone"), StudyLab, "predictor")
    worth = lied.notes["predictor"][-1]["proxies"]
    assert worth["gaussian"] < 0 and worth["mixture"] < 0
    gaussian, mixture = lied.notes["ladder"][0]["rungs"]
    assert mixture["correlation"] < 0 < gaussian["correlation"]  # one lie agrees with the other
    first = lied.seeds[: mixture["n"]]
    rest = [name for name in DIGITS_SEEDS if name not in first]
    assert lied.seeds[len(first) :] == rest[: len(lied.seeds) - len(first)]
    assert len(lied.seeds) > len(first)
    assert lied.best < 1.15 * alone.best
