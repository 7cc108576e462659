"""The page says what the database says, loads nothing and runs nothing but its own script."""

import base64
import hashlib
import json
import re
import tomllib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

import s3search
from s3search.cli import run
from s3search.errors import EvaluationFailed, StudyConflict
from s3search.run.launching import launch
from s3search.schedules.schedule import Schedule
from s3search.show.dashboard.artifacts import grids_made_here
from s3search.show.report import write_report
from s3search.show.report.data import collect
from s3search.show.report.page import render
from s3search.show.report.samples import NoSamples, Samples, make_samples
from s3search.show.report.study_file import study_toml
from s3search.study.database.store import StudyStore, open_study
from s3search.study.file.config import ModelTable, StudyConfig, parse_config
from s3search.study.results.comparison import comparison_of
from s3search.study.results.frame import status_of
from tests.support.studies import searched_study, study_config

NAME = "<script>alert(1)</script> $a & 'b'"
_VOID = {"meta", "img", "input", "br", "link", "hr"}


class Page(HTMLParser):
    """The page as a browser's parser sees it: elements with attributes, text, and balance."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> StudyConfig:
    """A finished study with an evil name, two numbers of calls and a second extractor."""
    config = study_config(
        tmp_path_factory.mktemp("study"),
        f"study.name={json.dumps(NAME)}",
        "space.nfe=[2, 3]",
        "search.algorithm=s3",
        "search.evaluations=40",
        "validation.metric.features=tests.support.plugins:squares",
        "validation.n_images=200",
    )
    launch(config, lambda _: None)
    return config


@pytest.fixture
def store(config: StudyConfig) -> Iterator[StudyStore]:
    with open_study(config.storage.url, NAME) as opened:
        yield opened


@pytest.fixture(scope="module")
def text(config: StudyConfig, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "report.html"
    written = write_report(config.storage.url, NAME, path, n_samples=4)
    found = path.read_text(encoding="utf-8")
    assert (written.n_bytes, written.no_samples) == (len(found.encode()), None)
    assert list(path.parent.iterdir()) == [path]
    return found


def test_the_numbers_are_those_of_compare_and_status(text: str, store: StudyStore) -> None:
    said = Page(text).text
    compared, status = comparison_of(store), status_of(store)
    assert {row["nfe"] for row in compared["rows"]} == {2, 3}
    for row in compared["rows"]:
        low, high = row["interval_95"]
        assert f"{row['value']:.4f} {low:.4f} to {high:.4f}" in said
        assert f"{row['search_value']:.4f}" in said
        assert f"{row['witness']['value']:.4f}" in said
        if not row["is_winner"]:
            assert f"{row['difference']:+.4f}" in said
            between = "" if row["ratio_95"] is None else f" {row['ratio_95'][0]:.2f} to"
            assert f"{row['ratio']:.2f}x{between}" in said
        if row["is_baseline"]:
            assert row["name"] in said
    for against in compared["against_published"]:
        assert f"published / found {against['ratio']:.2f}" in said
    for claim in compared["claims"]:
        for sentence in claim["says"]:
            assert said.count(f"NFE {claim['nfe']}: {sentence}") == 1
    for floor in compared["floor"]:
        assert f"{floor['value']:.4f}" in said
    assert f"{status['network_calls']:,} network calls" in said
    for name, cost in status["ledger"].items():
        assert f"{name} {cost['count']:,} {cost['network_calls']:,} (" in said
    evaluated = store.measured_with()
    assert evaluated is not None
    for digest in evaluated:
        assert digest in said


def test_names_and_notes_are_escaped(text: str, store: StudyStore) -> None:
    assert "<script>alert" not in text
    page = Page(text)
    assert len(page.all("script")) == 1
    assert page.text.startswith(f"{NAME}: s3search report")
    evil = "<img src=x onerror=alert(2)>"
    collected = collect(store)
    rows = [{**r, "name": evil, "is_baseline": True} for r in collected.comparison["rows"]]
    changed = {
        "errors": ((evil, 3),),
        "comparison": {**collected.comparison, "rows": rows},
        "provenance": {evil: evil},
        "study_file": evil,
    }
    for name, value in changed.items():
        object.__setattr__(collected, name, value)
    drawn = render(collected, NoSamples(evil))
    assert evil not in drawn
    assert drawn.count("&lt;img src=x onerror=alert(2)&gt;") >= 6


def test_the_page_loads_nothing(text: str) -> None:
    for address in re.findall(r"[a-z]+://[^\s\"'<]*", text):
        pytest.fail(f"the page names {address}")
    page = Page(text)
    assert {"link", "iframe", "object", "embed", "base"}.isdisjoint(t for t, _ in page.elements)
    for tag, attributes in page.elements:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href"):
                assert value is not None and value.startswith(("data:", "#")), (tag, value)
    assert "url(" not in re.sub(r"url\(#", "", text)
    (policy,) = [a["content"] for a in page.all("meta") if "http-equiv" in a]
    assert policy is not None and policy.startswith("default-src 'none'; ")


def test_the_policy_allows_the_script_of_the_page(text: str) -> None:
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text


def test_the_page_is_valid_and_accessible(text: str) -> None:
    page = Page(text)  # every element is closed in its order
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    for tag, attributes in page.elements:
        for name in ("href", "clip-path"):
            target = re.fullmatch(r"(?:url\()?#([^)]+)\)?", attributes.get(name) or "")
            assert target is None or target[1] in ids, (tag, target)
        labels = attributes.get("aria-labelledby")
        assert labels is None or labels in ids
    drawings = page.all("svg")
    assert len(drawings) >= 8
    assert all(a["role"] == "img" and a["aria-label"] for a in drawings)
    shown = [a for a in page.all("img") if a.get("src")]
    assert len(shown) == 2 * 3 + 1
    assert all(a["alt"] for a in shown)
    assert page.all("html") == [{"lang": "en"}]
    assert any(a.get("name") == "viewport" for a in page.all("meta"))
    headings = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert headings[0] == 1 and set(headings) == {1, 2, 3}


def test_the_best_can_be_taken_from_the_page(text: str, store: StudyStore) -> None:
    links = [a for a in Page(text).all("a") if a.get("download")]
    assert [a["download"] for a in links] == [f"schedule-{nfe}.json" for nfe in (2, 2, 3)]  # top
    winners = [r["schedule_id"] for r in comparison_of(store)["rows"] if r["is_winner"]]
    for link, winner in zip(links[1:], winners, strict=True):
        content = base64.b64decode(str(link["href"]).partition(",")[2])
        schedule = Schedule.from_dict(json.loads(content))
        assert schedule.id == winner
        assert schedule.provenance["study"] == NAME


def test_the_study_file_on_the_page_launches_the_same_study(config: StudyConfig) -> None:
    told = parse_config({**tomllib.loads(study_toml(config)), "storage": {"url": "sqlite://"}})
    assert told == config.model_copy(update={"storage": told.storage})
    assert "sqlite" not in study_toml(config)


def test_values_that_sound_secret_are_left_out(tmp_path: Path) -> None:
    options = {"hub_token": "hf_123", "prompts": ['a "b"\n', "é"], "sizes": {"a b": 1.5}}
    config = study_config(tmp_path)
    model = ModelTable.model_validate({"loader": "digits", **options})
    told = study_toml(config.model_copy(update={"model": model}))
    read = tomllib.loads(told)["model"]
    assert "hf_123" not in told
    assert (read["prompts"], read["sizes"]) == (options["prompts"], options["sizes"])


def test_a_model_that_cannot_be_loaded_leaves_a_sentence(
    config: StudyConfig, store: StudyStore
) -> None:
    model = config.model.model_copy(update={"loader": "tests.support.plugins:broken"})
    collected = collect(store)
    missing = make_samples(config.model_copy(update={"model": model}), collected.picks, 4)
    assert isinstance(missing, NoSamples)
    said = Page(render(collected, missing)).text
    assert "could not be run on this machine" in said
    assert "no such checkpoint" in said
    model = config.model.model_copy(update={"loader": "tests.support.plugins:raising"})
    failed = make_samples(config.model_copy(update={"model": model}), collected.picks, 4)
    assert isinstance(failed, NoSamples)
    assert "could not be run on this machine: ZeroDivisionError: by nothing" in failed.reason
    with pytest.raises(EvaluationFailed, match="failed with ZeroDivisionError: by nothing"):
        grids_made_here(
            config.model_copy(update={"model": model}), [next(iter(collected.best.values()))[0]], 2
        )
    there = make_samples(config, collected.picks, 4)
    assert isinstance(there, Samples)
    labels = [[grid.label for grid in grids] for grids in there.grids.values()]
    assert all(len(each) == 3 and "fine solve" in each[0] for each in labels)


def test_a_study_without_validated_schedules_is_a_clear_error(
    config: StudyConfig, tmp_path: Path
) -> None:
    path = tmp_path / "report.html"
    with pytest.raises(StudyConflict, match="no study 'other'"):
        write_report(config.storage.url, "other", path, n_samples=0)
    early = searched_study(tmp_path)
    engine = sa.create_engine(early.storage.url)
    with engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM s3search_evaluations WHERE rung = 'validation'"))
    engine.dispose()
    with pytest.raises(StudyConflict, match="no validated schedule yet"):
        write_report(early.storage.url, "t", path, n_samples=0)
    assert not path.exists()


def test_the_command_writes_the_page_and_says_where(
    config: StudyConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "page.html"
    words: list[Any] = ["s3search", "report", NAME, "--storage", config.storage.url]
    words += ["-o", str(path)]
    monkeypatch.setattr("sys.argv", [*words, "--json"])
    assert run() == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {
        "study": NAME,
        "path": str(path),
        "n_bytes": path.stat().st_size,
        "no_samples": "They were not asked for.",
    }
    monkeypatch.setattr("sys.argv", words)
    assert run() == 0
    assert capsys.readouterr().out.startswith(f"wrote {path}: ")
    monkeypatch.setattr("sys.argv", [*words[:-1], str(tmp_path / "none" / "page.html")])
    assert run() == 2


def test_the_best_scores_of_a_study_by_a_score_are_shown_beside_the_published(
    tmp_path: Path,
) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    s3search.search(
        "digits",
        metric="tests.support.plugins:asked_digit",
        nfe=3,
        evaluations=2,
        n_images=40,
        algorithm="random",
        validation={"n_images": 60, "finalists": 1},
        progress=False,
        storage=url,
        name="scores",
    )
    with open_study(url, "scores") as store:
        collected = collect(store)
        samples = make_samples(store.config, collected.picks, 4)
    assert isinstance(samples, Samples)
    published, found = samples.best_scores[3]
    assert published.label.startswith("best published") and found.label.startswith("found")
    assert published.source != found.source
    assert found.source not in [grid.source for grid in samples.grids[3]]  # not the first four
    page = render(collected, samples)
    assert "NFE 3: the best scores" in page
    assert "Of the first 32 images" in page
