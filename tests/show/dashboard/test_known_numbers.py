"""Every graph of a study whose numbers were written by hand: what is drawn is what is known.

Two numbers of calls; failures, a schedule that was measured no further, polishing, finals,
held-out values, an older validation of fewer images, and a measurement that somebody asked for
afterwards.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from s3search.processes import edm
from s3search.schedules import published
from s3search.schedules.schedule import Schedule
from s3search.search.questions import Answer, Measure, Measurement, Polish, PolishResult, Rung
from s3search.search.trial import Origin, Trial, seeded
from s3search.show.dashboard.cards import cards_of
from s3search.show.dashboard.choices import choices_of
from s3search.show.report import graphs
from s3search.show.report.data import Collected, collect
from s3search.study.database.store import StudyStore, create_or_resume
from s3search.study.results.frame import evaluations_frame
from tests.support.studies import study_config

PROCESS = edm()
DDIM, DDIM_KARRAS = (published.ddim(PROCESS, nfe=3, spacing=s) for s in ("uniform", "karras"))
UNIPC = published.unipc(PROCESS, nfe=3, spacing="karras")
A, B, LEFT = (
    published.dpmpp_2m(PROCESS, nfe=3, spacing=s) for s in ("uniform", "logsnr", "quadratic")
)
D = published.unipc(PROCESS, nfe=3, spacing="logsnr")
FAILED = published.dpmpp_2m(PROCESS, nfe=3, spacing="karras")
DDIM_2 = published.ddim(PROCESS, nfe=2, spacing="uniform")
C = published.dpmpp_2m(PROCESS, nfe=2, spacing="karras")

FOUND_D, FOUND_C = (f"s3search ({each.id[:8]}), exported" for each in (D, C))


@dataclass
class _Writer:
    """Writes into a store as a driver does, in the order of its calls."""

    store: StudyStore
    n: int = field(default=0)

    def propose(self, schedule: Schedule, origin: str) -> None:
        trial = Trial.of(schedule, Origin.of_text(origin))
        self.store.add_trials({self.n: trial})
        self.n += 1

    def search(self, schedule: Schedule, origin: str, value: float | None) -> None:
        self.propose(schedule, origin)
        self.measure(schedule, value)

    def measure(
        self,
        schedule: Schedule,
        value: float | None,
        rung: Rung = Rung.SEARCH,
        n_images: int = 100,
    ) -> None:
        has_stopped = rung is Rung.STOPPED
        asked = Rung.SEARCH if has_stopped else rung
        question = Measure(
            trial=Trial.of(schedule, seeded("given")),
            rung=asked,
            n_images=100 if has_stopped else n_images,
            noise_seed=list(Rung).index(asked),
        )
        self.store.add_measurement(_measurement(question, n_images, value))

    def polish(self, seed: int, network_calls: int, error: str | None = None) -> None:
        question = Polish(
            trial=Trial.of(D, seeded("given")), iterations=1, n_images=1, seed=seed, noise_seed=0
        )
        self.store.add_answer(
            Answer(
                question=question,
                value=PolishResult(schedule=D, losses=()) if error is None else None,
                error=error,
                network_calls=network_calls,
                seconds=2.0,
                worker="here/1",
            )
        )


def _measurement(question: Measure, n_images: int, value: float | None) -> Measurement:
    if value is None:
        error = "EvaluationFailed: no"
        return Measurement(question=question, error=error, seconds=0.5, worker="here/1")
    return Measurement(
        question=question,
        estimate=value,
        n_images=n_images,
        standard_error=0.01,
        metric="frechet",
        extractor="pixels",
        reference_digest="r",
        reference_n=10,
        model_fingerprint="m",
        network_batches=question.trial.nfe,
        sampling_seconds=0.4,
        seconds=0.5,
        worker="here/1",
        device="cpu",
        code_version="0",
    )


def _search(write: _Writer) -> None:
    """Behind each line the calls spent so far, as images x calls."""
    write.search(DDIM, "baseline: DDIM, uniform, stop, NFE 3", 2.0)  # 300
    write.search(DDIM_KARRAS, "baseline: DDIM, karras, stop, NFE 3", 1.5)  # 600
    write.search(UNIPC, "baseline: UniPC-3, karras, stop, NFE 3", 1.0)  # 900
    write.search(A, "random", 3.0)  # 1200
    write.search(FAILED, "random", None)  # 1200
    write.propose(LEFT, "random")
    write.measure(LEFT, 0.2, Rung.STOPPED, 25)  # 1275
    write.search(B, "mutation", 0.9)  # 1575
    write.search(DDIM_2, "baseline: DDIM, uniform, stop, NFE 2", 4.0)  # 1775
    write.search(C, "mutation", 2.5)  # 1975
    write.polish(1, 1000)  # 2975
    write.search(D, "polish 1", 0.6)  # 3275
    for schedule, value in ((D, 0.7), (B, 0.8)):
        write.measure(schedule, value, Rung.FINALS, 400)  # 4475, 5675
    write.polish(2, 50, "EvaluationFailed: no gradient")  # 5725


def _validate(write: _Writer) -> None:
    held_out = ((D, 0.75), (B, 0.85), (UNIPC, 0.95), (DDIM_KARRAS, 1.45), (C, 2.4), (DDIM_2, 3.9))
    for schedule, value in held_out:
        write.measure(schedule, value, Rung.VALIDATION, 400)
    write.measure(A, 0.1, Rung.VALIDATION, 50)  # of an earlier setting
    write.measure(DDIM, None, Rung.VALIDATION)
    write.measure(D, 0.01, Rung.USER, 1000)
    common = {"nfe": 3, "n": 2, "spearman": 1.0, "mean_abs_rank_error": 0.0, "coverage": 1.0}
    for stage, ranks in ((1, [[0.0, 0.5], [1.0, 1.0]]), (2, [[0.25, 0.0]])):
        write.store.add_note("calibration", {**common, "stage": stage, "ranks": ranks})
    for when, pairs in (("seeds", [[9.0, 9.0]]), ("end", [[0.3, 2.0], [0.1, 1.0], [0.2, 3.0]])):
        content = {"when": when, "nfe": 3, "rungs": [], "against_whole": {"gaussian": pairs}}
        write.store.add_note("ladder", {**content, "scored": {"gaussian": 3}})


@pytest.fixture(scope="module")
def collected(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Collected, dict[str, Any]]:
    config = study_config(
        Path(tmp_path_factory.mktemp("known")),
        "space.nfe=[2, 3]",
        "search.n_images=100",
        "validation.n_images=400",
    )
    with create_or_resume(config, {}) as store:
        write = _Writer(store)
        _search(write)
        _validate(write)
        store.set_state("done")
        found = collect(store)
        frame = evaluations_frame(store)
        choices = [choices_of(store, frame, nfe) for nfe in (2, 3)]
    figures = cards_of(found, [each for each in choices if each is not None])
    return found, {name: figure.to_plotly_json() for name, figure in figures.items()}


@pytest.fixture(scope="module")
def cards(collected: tuple[Collected, dict[str, Any]]) -> dict[str, Any]:
    return {name: card["data"] for name, card in collected[1].items()}


@pytest.fixture(scope="module")
def data(collected: tuple[Collected, dict[str, Any]]) -> Collected:
    return collected[0]


def test_every_graph_has_its_numbers_checked_here(cards: dict[str, Any]) -> None:
    both = {f"s3search-{kind}-nfe{nfe}" for kind in _OF_BOTH for nfe in (2, 3)}
    alone = {"s3search-predictor-nfe3", "s3search-proxy-gaussian-nfe3"}
    assert set(cards) == both | alone | {"s3search-cost", "s3search-front"}


_OF_BOTH = ("progress", "times", "compared", "choices")


def test_best_so_far_against_calls(cards: dict[str, Any], data: Collected) -> None:
    found, unipc, ddim = cards["s3search-progress-nfe3"]
    assert (found["x"], found["y"]) == ([1200, 1575, 3275, 5725], [3.0, 0.9, 0.6, 0.6])
    assert (unipc["x"], unipc["y"]) == ([0, 5725], [1.0, 1.0])
    assert unipc["name"] == "UniPC-3, 1"
    assert (ddim["y"], ddim["name"]) == ([1.5, 1.5], "DDIM, 1.5")
    found, ddim = cards["s3search-progress-nfe2"]
    assert (found["x"], found["y"]) == ([1975, 5725], [2.5, 2.5])
    assert ddim["y"] == [4.0, 4.0]
    (axes,) = graphs.progress_figure(data.progress[1]).axes
    *_, curve, _ = axes.lines
    assert list(curve.get_xdata()) == [1200, 1575, 3275, 5725]
    assert list(curve.get_ydata()) == [3.0, 0.9, 0.6, 0.6]


def test_found_and_published_on_held_out_noise(cards: dict[str, Any], data: Collected) -> None:
    found, known = cards["s3search-compared-nfe3"]
    assert (found["x"], found["y"]) == ([0.75], [FOUND_D])
    assert known["x"] == [0.95, 1.45]
    assert [name.split(",")[0] for name in known["y"]] == ["UniPC-3", "DDIM"]
    for each in (found, known):
        for side in ("array", "arrayminus"):
            assert each["error_x"][side] == pytest.approx([0.0196] * len(each["x"]))
    found, known = cards["s3search-compared-nfe2"]
    assert (found["x"], found["y"], known["x"]) == ([2.4], [FOUND_C], [3.9])
    rows = [row for row in data.comparison["rows"] if row["nfe"] == 3]
    (axes,) = graphs.comparison_figure(rows).axes
    points = [line.get_xdata()[0] for line in axes.lines if len(line.get_xdata()) == 1]
    assert points == [0.75, 0.95, 1.45]


def test_distance_against_calls(cards: dict[str, Any]) -> None:
    found, known = cards["s3search-front"]
    assert (found["x"], found["y"], found["text"]) == ([2, 3], [2.4, 0.75], [FOUND_C, FOUND_D])
    assert (known["x"], known["y"]) == ([2, 3], [3.9, 0.95])
    assert [name.split(",")[0] for name in known["text"]] == ["DDIM", "UniPC-3"]
    assert found["error_y"]["array"] == pytest.approx([0.0196] * 2)


def test_times_of_the_best(cards: dict[str, Any], data: Collected) -> None:
    lines = cards["s3search-times-nfe3"]
    assert [line["name"].rpartition(", ")[2] for line in lines] == ["0.75", "0.85", "0.95"]
    assert [line["line"]["dash"] for line in lines] == ["solid", "solid", "dash"]
    for line, schedule in zip(lines, (D, B, UNIPC), strict=True):
        sigmas = [t for t in schedule.times if t > 0]  # edm: the time is sigma, alpha is 1
        assert line["x"] == list(range(len(sigmas)))
        assert line["y"] == pytest.approx(sigmas, rel=1e-5)
    (axes,) = graphs.times_figure(data.picks[3]).axes
    assert len(axes.lines) == 3


def test_choices_of_the_best(collected: tuple[Collected, dict[str, Any]]) -> None:
    """A, B and D: the schedules found with three calls that were measured whole."""
    card = collected[1]["s3search-choices-nfe3"]
    assert card["layout"]["title"]["text"] == "NFE 3: choices of the best 3 of 3"
    (cells,) = card["data"]
    assert dict(zip(cells["y"], cells["z"], strict=True)) == {
        "Taylor, data, order 1": [66.6667, 0.0, 66.6667],
        "Taylor, data, order 2": [0.0, 66.6667, 0.0],
        "UniPC bh2, data, order 1 + pseudo": [33.3333, 0.0, 0.0],
        "UniPC bh2, data, order 2 + pseudo": [0.0, 33.3333, 0.0],
        "UniPC bh2, data, order 1": [0.0, 0.0, 33.3333],
    }


def test_predictor_and_proxy(collected: tuple[Collected, dict[str, Any]]) -> None:
    (_, one, two) = collected[1]["s3search-predictor-nfe3"]["data"]
    assert (one["x"], one["y"], one["name"]) == ([0.0, 1.0], [0.5, 1.0], "stage 1")
    assert (two["x"], two["y"], two["name"]) == ([0.25], [0.0], "stage 2")
    card = collected[1]["s3search-proxy-gaussian-nfe3"]
    (marks,) = card["data"]
    assert (marks["x"], marks["y"]) == ([0.3, 0.1, 0.2], [2.0, 1.0, 3.0])
    assert card["layout"]["title"]["text"].endswith("rank correlation 0.50")


def test_what_it_cost(cards: dict[str, Any]) -> None:
    """Calls: search 6 x 300 + 2 x 200, race 75, finals 2 x 1200, validation 4 x 1200 + 2 x 800 and
    150 of the older one, user 3000, polish 1050; seconds: 0.5 each, 2 for polishing.
    """
    calls, seconds = cards["s3search-cost"]
    known = {
        "search": (2200, 4.5),
        "race": (75, 0.5),
        "finals": (2400, 1.0),
        "validation": (6550, 4.0),
        "user": (3000, 0.5),
        "polish": (1050, 4.0),
    }
    assert sum(each[0] for each in known.values()) == 15275
    told = dict(
        zip(calls["y"], zip(calls["text"], calls["x"], seconds["x"], strict=True), strict=True)
    )
    assert told.keys() == known.keys()
    for name, (n, spent) in known.items():
        text, calls_share, seconds_share = told[name]
        assert text == f"{n:,}"
        assert calls_share == pytest.approx(100 * n / 15275, rel=1e-5)
        assert seconds_share == pytest.approx(100 * spent / 14.5, rel=1e-5)
