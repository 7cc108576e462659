"""A search that goes on after a person's veto, interrupted or not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from s3search.run import tally
from s3search.run.launching import launch
from s3search.search.questions import Rung
from s3search.study import vetoes
from s3search.study.database.store import open_study
from s3search.study.file.config import StudyConfig
from s3search.study.optuna import mirror
from s3search.study.results.frame import evaluations_frame, status_of, validated
from s3search.study.results.progress import Progress
from tests.support.studies import content, proposals, searched_study, study_config

FEW = ("validation.baselines=false", "validation.n_images=40")
LADDER = "search.ladder=['race', 'polish']"
S3 = (*FEW, "search.algorithm=s3", "search.evaluations=120", LADDER)
EVOLUTION = (*FEW, "search.evaluations=10")

Report = Callable[[Progress], None]


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The search is too quick here for anyone to be a second behind."""
    monkeypatch.setattr(tally, "_VETO_SECONDS", 0.0)
    monkeypatch.setattr(mirror, "_SECONDS", 0.0)


class _Person:
    """Vetoes the best found schedule once so many results are there."""

    def __init__(self, config: StudyConfig, after: int) -> None:
        self._url, self._after, self._n = config.storage.url, after, 0
        self.vetoed: str | None = None
        self.n_proposed = 0  # when it was vetoed
        self.shown: float | None = None  # the live table's best, just after

    def __call__(self, progress: Progress) -> None:
        if progress.stage not in ("search", "baselines"):
            return
        self._n += 1
        if self.vetoed is not None and self.shown is None:
            self.shown = progress.best.get(3)
        if self._n == self._after:
            with open_study(self._url, "t") as store:
                measured = evaluations_frame(store)
                self.n_proposed = len(store.trials())
            found = measured[(measured["rung"] == Rung.SEARCH.value) & ~measured["is_baseline"]]
            self.vetoed = str(found.sort_values("value").iloc[0]["schedule_id"])
            vetoes.veto(self._url, "t", self.vetoed, "blurred")


class _Interrupts:
    """Passes reports on and stops the run after so many."""

    def __init__(self, report: Report, after: int) -> None:
        self._report, self._left = report, after

    def __call__(self, progress: Progress) -> None:
        self._report(progress)
        self._left -= 1
        if self._left == 0:
            raise KeyboardInterrupt


def _config(folder: Path, *overrides: str) -> StudyConfig:
    folder.mkdir()
    return study_config(folder, *overrides)


def _same(found: dict[str, Any], expected: dict[str, Any]) -> bool:
    keys = ("proposals", "evaluations", "best")
    return all(found[key] == expected[key] for key in keys)


@pytest.mark.parametrize(
    ("algorithm", "after"), [(EVOLUTION, 14), (S3, 30)], ids=["evolution", "s3"]
)
def test_nothing_is_made_of_a_vetoed_schedule(
    tmp_path: Path, algorithm: tuple[str, ...], after: int
) -> None:
    config = _config(tmp_path / "whole", *algorithm)
    person = _Person(config, after)
    launch(config, person)
    assert person.vetoed is not None
    with open_study(config.storage.url, "t") as store:
        later = store.trials()[person.n_proposed :]
        scored = validated(evaluations_frame(store), store.config)
        rescored = store.values(Rung.VALIDATION, store.config.validation.n_images)
        values = store.values(Rung.SEARCH, store.config.search.n_images)
        shown = status_of(store)["best"]["3"]["search"]
    assert later
    assert person.vetoed not in {parent for own in later for parent in own.parents}
    assert person.vetoed not in rescored
    assert scored and person.shown is not None
    assert person.shown != values[person.vetoed]
    others = [v for i, v in values.items() if v is not None and i != person.vetoed]
    assert shown >= min(others)

    config = _config(tmp_path / "cut", *algorithm)
    with pytest.raises(KeyboardInterrupt):
        launch(config, _Interrupts(_Person(config, after), after + 5))
    launch(config, lambda _: None)
    assert _same(content(config), content(study_config(tmp_path / "whole", *algorithm)))


@pytest.mark.parametrize("algorithm", [EVOLUTION, S3], ids=["evolution", "s3"])
def test_a_veto_while_nobody_searches_costs_nothing_that_was_measured(
    tmp_path: Path, algorithm: tuple[str, ...]
) -> None:
    config = searched_study(tmp_path, *algorithm)
    before = content(config)
    vetoes.veto(config.storage.url, "t", before["best"][3][0], "blurred")
    launch(config, lambda _: None)
    after = content(config)
    assert after["proposals"] == before["proposals"]
    assert [r for r in after["evaluations"] if r[0] != "validation"] == [
        r for r in before["evaluations"] if r[0] != "validation"
    ]
    assert after["best"][3][0] != before["best"][3][0]


def test_a_veto_between_two_runs_holds_from_the_next_proposal_on(tmp_path: Path) -> None:
    config = study_config(tmp_path, *S3)
    with pytest.raises(KeyboardInterrupt):
        launch(config, _Interrupts(lambda _: None, 27))
    known = proposals(config.storage.url)
    with open_study(config.storage.url, "t") as store:
        values = store.values(Rung.SEARCH, store.config.search.n_images)
    best = min((v, i) for i, v in values.items() if v is not None)[1]
    vetoes.veto(config.storage.url, "t", best, "blurred")
    launch(config, lambda _: None)
    found = proposals(config.storage.url)
    assert found[: len(known)] == known
    later = found[len(known) :]
    assert later
    assert best not in {parent for *_, parents in later for parent in parents}


def test_a_finalist_vetoed_during_the_validation_leaves_its_place(tmp_path: Path) -> None:
    config = study_config(tmp_path, "search.evaluations=8", "validation.finalists=2")
    url = config.storage.url
    chosen: list[str] = []

    def veto_the_best(progress: Progress) -> None:
        if progress.stage == "validation" and not chosen:
            with open_study(url, "t") as store:
                values = store.values(Rung.SEARCH, store.config.search.n_images)
                frame = evaluations_frame(store)
            found = set(frame[~frame["is_baseline"]]["schedule_id"])
            ranked = sorted((v, i) for i, v in values.items() if v is not None and i in found)
            chosen.append(ranked[0][1])
            vetoes.veto(url, "t", chosen[0], "blurred")

    launch(config, veto_the_best)
    with open_study(url, "t") as store:
        scored = validated(evaluations_frame(store), store.config)
    assert chosen[0] not in {each.schedule_id for each in scored}
    assert sum(not each.is_baseline for each in scored) == 2


@pytest.mark.parametrize("algorithm", [EVOLUTION, S3], ids=["evolution", "s3"])
def test_a_lifted_veto_lets_its_schedule_be_validated(
    tmp_path: Path, algorithm: tuple[str, ...]
) -> None:
    config = searched_study(tmp_path, *algorithm, "validation.finalists=1")
    before = content(config)
    known = {row[1] for row in before["evaluations"] if row[0] == "validation"}
    with open_study(config.storage.url, "t") as store:
        frame = evaluations_frame(store)
    found = frame[(frame["rung"] == Rung.SEARCH.value) & ~frame["is_baseline"]]
    vetoed = next(i for i in found.sort_values("value")["schedule_id"] if i not in known)
    vetoes.veto(config.storage.url, "t", vetoed, "blurred")
    launch(config, lambda _: None)  # the search is told of it at its end
    vetoes.lift(config.storage.url, "t", vetoed)
    config = study_config(tmp_path, *algorithm, "validation.finalists=40")
    launch(config, lambda _: None)
    lifted = content(config)
    assert lifted["proposals"] == before["proposals"]
    assert vetoed in {row[1] for row in lifted["evaluations"] if row[0] == "validation"}
