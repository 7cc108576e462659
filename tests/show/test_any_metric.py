"""Every view of a study names its metric, and puts the better first whichever way is better."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import torch
from rich.console import Console, RenderableType

import s3search
from s3search.formats.exporters.sigmas import sigmas_file
from s3search.models import digits
from s3search.processes import edm
from s3search.run.found import SearchResult
from s3search.schedules.published.listed import LISTED_SOLVERS
from s3search.search.direction import Direction
from s3search.show.dashboard import Access, application
from s3search.show.dashboard.beside import side_by_side
from s3search.show.dashboard.cards import cards_of
from s3search.show.dashboard.choices import choices_of
from s3search.show.dashboard.note import note_text
from s3search.show.report import write_report
from s3search.show.report.data import collect
from s3search.show.terminal.comparison import comparison_lines, comparison_table
from s3search.show.terminal.progress import progress_line, progress_table
from s3search.show.terminal.results import best_lines, evaluation_line
from s3search.show.terminal.robustness import robustness_lines, robustness_table
from s3search.show.terminal.status import status_lines
from s3search.show.terminal.verdict import verdict_lines
from s3search.show.terminal.watching import watched_json
from s3search.study.database.store import StudyStore, open_study
from s3search.study.file.config import load_config
from s3search.study.metric_words import FRECHET, MetricWords
from s3search.study.results.comparison import comparison_of
from s3search.study.results.export import with_provenance
from s3search.study.results.exported import exported_first, ranked
from s3search.study.results.frame import Scored, evaluations_frame, status_of, validated
from s3search.study.results.watching import look
from s3search.tasks.robustness import Carried, ModelVariant, robustness
from tests.show.dashboard.client import ask
from tests.show.report.test_report import Page

_MODEL, _JUDGE = digits.load(), digits.features("b")
_OTHER_WORDS = re.compile(
    r"distance|fr[ée]chet|(?-i:FD@)|nearer|nearest|lower is better|the lower the better|lowest"
    r"|features of|times lower|\d\.\d\dx|ratio to|ratios to|reference digest",
    re.IGNORECASE,
)


def log_probability(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Of the class that was asked for: never positive, and the higher the better."""
    return _JUDGE.logits(images).log_softmax(1).gather(1, labels[:, None])[:, 0]


@dataclass(frozen=True, slots=True)
class Searched:
    """A study of its own database."""

    result: SearchResult
    url: str
    name: str

    @contextmanager
    def store(self) -> Iterator[StudyStore]:
        with open_study(self.url, self.name) as store:
            yield store


_FILE = """\
[study]
name = "file"
[model]
loader = "digits"
[space]
nfe = [5]
[metric]
kind = "score"
score = "tests.show.test_any_metric:scorer"
[search]
evaluations = 20
n_images = 60
[storage]
url = "sqlite:///{folder}/study.db"
[cluster]
address = "inline"
workers = 1
"""
_search = partial(
    s3search.search,
    _MODEL,
    nfe=5,
    evaluations=24,
    n_images=60,
    progress=False,
    seed=3,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("metrics")


@pytest.fixture(scope="module")
def scores(folder: Path) -> Searched:
    url = f"sqlite:///{folder / 'both.db'}"
    return Searched(_search(metric=log_probability, storage=url, name="scores"), url, "scores")


@pytest.fixture(scope="module")
def minds(folder: Path) -> Searched:
    url = f"sqlite:///{folder / 'both.db'}"
    real = digits.images()
    found = _search(metric="mind", reference=real, features=_JUDGE, storage=url, name="minds")
    return Searched(found, url, "minds")


def _drawn(drawing: RenderableType) -> str:
    console = Console(width=80)
    with console.capture() as shown:
        console.print(drawing)
    return " ".join(shown.get().split())


def _terminal_views(study: Searched) -> Iterator[tuple[str, str]]:
    with study.store() as store:
        watched = look(store)
        yield "progress line", progress_line(watched.progress)
        yield "progress table", _drawn(progress_table(watched.progress))
        yield "watched", json.dumps(watched_json(watched))
        yield "status", "\n".join(status_lines([status_of(store)]))
        compared = comparison_of(store)
    yield "comparison", _drawn(comparison_table(compared))
    yield "claims", "\n".join(comparison_lines(compared))
    yield "verdict", "\n".join(verdict_lines(compared))
    found = study.result.schedule
    row = {"schedule_id": found.id, "nfe": found.nfe, **found.provenance}
    yield "best", "\n".join(best_lines([row]))


def _page_views(study: Searched, folder: Path) -> Iterator[tuple[str, str]]:
    path = folder / f"{study.name}.html"
    write_report(study.url, study.name, path, n_samples=0)
    yield "report", path.read_text()
    with study.store() as store:
        frame = evaluations_frame(store)
        collected = collect(store, frame)
        choices = [found for nfe in collected.best if (found := choices_of(store, frame, nfe))]
        cards = cards_of(collected, choices)
        first, second = ranked(frame)["schedule_id"][:2]
    yield "note", note_text(collected)
    yield from ((name, card.to_json()) for name, card in cards.items())
    addresses = (
        f"/studies/{study.name}",
        f"/ranking/{study.name}",
        f"/compare/{study.name}?id={first}&id={second}",
        f"/schedules/{first}",
        f"/live/{study.name}?known=",
    )
    with application(study.url, Access()) as served:
        for address in addresses:
            answer = ask(served, address)
            assert answer.status == 200, address
            yield address, answer.text


def _python_views(study: Searched) -> Iterator[tuple[str, str]]:
    found = study.result
    yield "repr", repr(found)
    yield "html", found._repr_html_()
    yield "table", " ".join(found.table.columns)
    yield "plot", " ".join(axes.get_xlabel() for axes in found.plot().axes)


@pytest.fixture(scope="module")
def score_views(scores: Searched, folder: Path) -> dict[str, str]:
    pages = _page_views(scores, folder)
    return dict([*_terminal_views(scores), *pages, *_python_views(scores)])


@pytest.fixture(scope="module")
def mind_views(minds: Searched, folder: Path) -> dict[str, str]:
    pages = _page_views(minds, folder)
    return dict([*_terminal_views(minds), *pages, *_python_views(minds)])


def _validated(study: Searched) -> list[Scored]:
    with study.store() as store:
        return exported_first(store, validated(evaluations_frame(store), store.config))


def test_no_view_of_a_score_speaks_of_distances(score_views: dict[str, str]) -> None:
    found = {
        name: sorted({each.group() for each in _OTHER_WORDS.finditer(text)})
        for name, text in score_views.items()
    }
    assert {name: words for name, words in found.items() if words} == {}


def test_views_of_a_score_say_what_it_is_and_which_is_better(score_views: dict[str, str]) -> None:
    said = {
        "progress table": "scores, the higher the better",
        "status": "by the mean score, the higher the better",
        "comparison": "Mean score of 120 images",
        "best": "  score -0.",
        "report": "Higher is better.",
        "note": "the higher the better",
        "s3search-progress-nfe5": '"score of 60 images"',
        "s3search-compared-nfe5": "NFE 5: score on held-out noise",
        "/ranking/scores": "by their score at the search rung",
        "/live/scores?known=": "Higher scores are better",
        "repr": "score -0.",
        "table": "is_winner score low high",
        "plot": "score of 120 images",
    }
    assert {name: text for name, text in said.items() if text not in score_views[name]} == {}
    (compare,) = [text for name, text in score_views.items() if name.startswith("/compare")]
    assert "Which is better" in compare and "Higher scores are better." in compare


def test_views_of_another_distance_name_it(minds: Searched, mind_views: dict[str, str]) -> None:
    winner = _validated(minds)[0]
    said = {
        "progress table": "distances, the lower the better",
        "status": "by the MIND distance, the lower the better",
        "comparison": "MIND distance of 120 images",
        "best": f"  mind distance {winner.value:.4f} (95 % ",
        "report": "MIND distance of 120 images",
        "note": "Distances are MIND distances in the features of",
        "repr": f"distance {winner.value:.4f} (",
        "table": "is_winner distance low high",
    }
    assert {name: text for name, text in said.items() if text not in mind_views[name]} == {}
    named = {name for name, text in mind_views.items() if re.search("fréchet|FD@", text, re.I)}
    assert named == set()


def test_the_numbers_of_a_score_are_those_of_the_database(
    scores: Searched, score_views: dict[str, str]
) -> None:
    rows = _validated(scores)
    assert len(rows) > 3 and all(row.value < 0.0 for row in rows)
    for row in rows[:1]:
        for name in ("status", "comparison", "claims", "best", "report", "note", "repr", "html"):
            assert f"{row.value:.4f}" in score_views[name], name
    table = scores.result.table
    assert dict(zip(table["schedule_id"], table["score"], strict=True)) == {
        row.schedule_id: row.value for row in rows
    }
    assert table["times_winner"].isna().all()


def test_the_ranking_begins_with_the_highest_score(
    scores: Searched, score_views: dict[str, str]
) -> None:
    shown = Page(score_views["/ranking/scores"]).text
    values = [float(v) for v in re.findall(r" (-\d+\.\d{4}) (?:-\d+\.\d{4}|-)(?: |$)", shown)]
    with scores.store() as store:
        frame = evaluations_frame(store)
    measured = frame[(frame["rung"] == "search") & (frame["state"] == "complete")]["value"]
    assert len(values) == len(measured) > 5
    assert values == sorted(values, reverse=True)
    assert values[0] == pytest.approx(measured.max(), abs=1e-4)


def test_curves_and_graphs_of_a_score_go_up(scores: Searched) -> None:
    with scores.store() as store:
        frame = evaluations_frame(store)
        collected = collect(store, frame)
        cards = cards_of(collected, ())
    (curve,) = collected.progress
    values = [value for _, value in curve.found]
    assert values == sorted(values) and values[-1] == collected.status["best"]["5"]["search"]
    published = [value for _, value in curve.published]
    assert published == sorted(published, reverse=True)
    assert published[0] == collected.status["best"]["5"]["search_baseline"]
    for name in ("s3search-progress-nfe5", "s3search-compared-nfe5"):
        layout = cards[name].layout
        assert "log" not in (layout.xaxis.type, layout.yaxis.type)
    names = list(cards["s3search-compared-nfe5"].layout.yaxis.categoryarray)
    rows = sorted(collected.comparison["rows"], key=lambda row: row["value"])
    best = rows[-1]
    assert (best["name"] if best["is_baseline"] else best["schedule_id"][:8]) in names[-1]
    for proxied in collected.proxies:
        assert max(measured for _, measured in proxied.pairs) <= 0.0


def test_the_better_of_two_by_a_score_is_the_higher(scores: Searched) -> None:
    rows = sorted(_validated(scores), key=lambda row: row.value)
    ids = [rows[0].schedule_id, rows[-1].schedule_id]
    with scores.store() as store:
        (verdict,) = side_by_side(store, evaluations_frame(store), ids, None).verdicts
    assert f"{ids[1][:8]} is better" in verdict


def test_the_studies_page_names_each_metric(scores: Searched, minds: Searched) -> None:
    with application(scores.url, Access()) as served:
        text = Page(ask(served, "/studies").text).text
    assert "scores done mean score the higher the better" in text
    assert "minds done MIND distance the lower the better" in text
    assert "Lower distances are better." in text and "Higher scores are better." in text


def test_a_schedule_of_both_kinds_says_so(scores: Searched, minds: Searched) -> None:
    ids = [set(study.result.table["schedule_id"]) for study in (scores, minds)]
    both = sorted(ids[0] & ids[1])
    with application(scores.url, Access()) as served:
        text = Page(ask(served, f"/schedules/{both[0]}").text).text
    assert "judged by distance or score" in text


def test_a_single_evaluation_says_its_metric(scores: Searched) -> None:
    found = s3search.evaluate(
        scores.result.schedule, _MODEL, metric=log_probability, n_images=50, seed=2
    )
    assert found.direction is Direction.MAXIMIZE and "maximize" in repr(found)
    line = evaluation_line(found.measurement, found.interval)
    assert line.startswith(f"score {found.value:.4f}") and not _OTHER_WORDS.search(line)


def test_an_exported_schedule_says_which_is_better(scores: Searched) -> None:
    source = scores.result.schedule.provenance
    assert (source["metric"], source["direction"]) == ("score", "maximize")
    listed = LISTED_SOLVERS["dpmpp_2m"].on(edm(), (80.0, 10.0, 1.0))
    text, _ = sigmas_file(with_provenance(listed, source))
    value = source["held_out"]["value"]
    assert f"study scores: score {value:.4f} of 120 held-out images, score log_prob" in text
    assert not _OTHER_WORDS.search(text)


def scorer() -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """The score, for a study file."""
    return log_probability


def test_robustness_by_a_score_is_by_differences(scores: Searched, tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text(_FILE.format(folder=tmp_path))
    config = load_config(path)
    carried = [Carried(name="own.json", schedule=scores.result.schedule)]
    variants = [ModelVariant(label="same", config=config, seed=11)]
    found = robustness(carried, variants, n_images=120, report=lambda _: None)
    (row,) = found["rows"]
    assert row["ratio"] is None
    assert row["difference"] == row["value"] - row["published"]["value"]
    low, high = row["difference_95"]
    expected = "holds" if low > 0.0 else "fails" if high < 0.0 else "undecided"
    assert row["verdict"] == expected
    said = _drawn(robustness_table(found)) + "\n".join(robustness_lines(found))
    assert "Mean score of 120 images" in said and not _OTHER_WORDS.search(said)


def test_what_is_maximised_is_better_by_a_difference(scores: Searched) -> None:
    with scores.store() as store:
        now = look(store).progress
    gained = now.best[5] - now.today[5].value
    assert f"{gained:+.4f}" in _drawn(progress_table(now))


def test_axes_are_logarithmic_where_ratios_count() -> None:
    maximised = MetricWords(kind="score", direction=Direction.MAXIMIZE)
    assert FRECHET.is_logarithmic([0.1, 2.0])
    assert not FRECHET.is_logarithmic([-0.1, 2.0])
    assert not maximised.is_logarithmic([0.1, 2.0])


def test_the_table_of_distances_is_as_it_was(minds: Searched) -> None:
    table: pd.DataFrame = minds.result.table
    winner = table[table["is_winner"]].iloc[0]
    assert winner["times_winner"] == 1.0
    assert {"distance", "second_distance", "search_distance"} <= set(table.columns)
