"""What a study will cost, before it is spent: against what it then did cost."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from s3search.processes import edm
from s3search.run.algorithms import make_search
from s3search.run.forecast import to_validate
from s3search.run.launching import dry_run, launch
from s3search.schedules.published.baselines import published_solvers
from s3search.search.algorithms import s3
from s3search.search.ladder import LadderRung
from s3search.search.space import load_space
from s3search.search.trial import Trial, distinct, published_as
from s3search.show.terminal.forecast import forecast_lines
from s3search.study.database.store import open_study
from s3search.study.file.config import StudyConfig, parse_config
from s3search.study.results.forecast import CostForecast
from s3search.study.results.frame import evaluations_frame, finalists, status_of
from s3search.study.results.progress import Progress
from s3search.study.results.watching import look
from tests.cli.test_cli import Cli, cli
from tests.support.searches import setup_of
from tests.support.studies import study_config, study_file

__all__ = ["cli"]

S3 = ("search.algorithm=s3", "search.evaluations=120", "search.n_images=40")


class _Listener:
    """A report that keeps all that it hears."""

    def __init__(self) -> None:
        self.heard: list[CostForecast | Progress] = []

    def __call__(self, now: Progress) -> None:
        self.heard.append(now)

    def begins(self, forecast: CostForecast) -> None:
        self.heard.append(forecast)


def _seeds(*nfe: int) -> tuple[Trial, ...]:
    return tuple(
        trial
        for n in nfe
        for trial in distinct(
            Trial.of(each.schedule, published_as(each.solver, each.variant, n))
            for each in published_solvers(edm(), n)
        )
    )


def _stages(algorithm: str, **changes: object) -> Mapping[str, float]:
    options = {"nfe": [3, 5], "seeds": _seeds(3, 5), "evaluations": 300, "n_images": 1000}
    setup = setup_of(load_space("usf"), edm(), **{**options, **changes})
    assert setup.evaluations is not None
    search = make_search(algorithm, setup)
    by_stage = search.images_by_stage(float(setup.evaluations * setup.n_images))  # type: ignore[attr-defined]
    return {name: round(images) for name, images in by_stage.items()}


def test_the_stages_of_s3_are_the_shares_of_its_budget() -> None:
    shares = {"baselines": s3._SEEDS, "search": s3._EVOLUTION, "finals": s3._FINALS}
    found = _stages("s3")
    assert {name: found[name] / 300_000 for name in shares} == pytest.approx(shares)
    assert sum(found.values()) == 300_000
    rungs = [rung for rung in LadderRung if rung is not LadderRung.POLISH]
    alone = _stages("s3", ladder=tuple(rungs))
    assert (alone["polish"], sum(alone.values())) == (0.0, 300_000)


def test_a_small_budget_still_pays_for_four_published_schedules_of_each_number_of_calls() -> None:
    found = _stages("s3", evaluations=20)
    assert found["baselines"] == 8 * 1000
    assert sum(found.values()) == 20_000
    assert _stages("s3", evaluations=20, seeds=())["baselines"] == 0.0


def test_other_searches_measure_what_they_begin_with_on_top() -> None:
    seeds = _seeds(3, 5)
    assert _stages("evolution") == {"baselines": 1000 * len(seeds), "search": 300_000}


def test_what_is_foretold_is_what_it_costs(tmp_path: Path) -> None:
    """The stages as the driver names them; of the validation the most that it can be."""
    config, listener = study_config(tmp_path, *S3, "validation.n_images=auto"), _Listener()
    launch(config, listener)
    told, *progress = listener.heard
    assert isinstance(told, CostForecast)
    assert not any(isinstance(each, CostForecast) for each in progress)
    assert told.spent == 0
    with open_study(config.storage.url, "t") as store:
        ledger, status = status_of(store)["ledger"], status_of(store)
        chosen = finalists(evaluations_frame(store), store.config)
    spent = {name: cost["network_calls"] for name, cost in ledger.items()}
    validation = spent.pop("validation")
    of_search = sum(own for name, own in told.network_calls.items() if name != "validation")
    assert sum(spent.values()) == pytest.approx(of_search, rel=0.1) == 120 * 40 * 3
    assert spent["finals"] == pytest.approx(told.network_calls["finals"], rel=0.1)
    assert spent["polish"] == pytest.approx(told.network_calls["polish"], rel=0.4)
    assert len(chosen) <= told.validated <= len(chosen) + 4
    assert told.held_out_images == config.held_out_images == 210
    assert validation <= told.network_calls["validation"] == 210 * 3 * told.validated
    assert validation == pytest.approx(sum(spent.values()), rel=0.5)  # about what the search cost
    assert (status["budget_share"], status["state"]) == (1.0, "done")
    again = _Listener()
    launch(config, again)
    assert again.heard == []  # nothing is spent
    launch(study_config(tmp_path, *S3, "validation.n_images=330"), again)
    known = again.heard[0]
    assert isinstance(known, CostForecast)
    assert (known.spent, known.held_out_images) == (status["network_calls"], 330)


def _fine(tmp_path: Path) -> StudyConfig:
    """A study of 200 images whose metric compares them with fine solves."""
    changes = (*S3, "search.n_images=200", "validation.n_images=210")
    tables = study_config(tmp_path, *changes).model_dump()
    return parse_config({**tables, "metric": {"score": "psnr", "target": "fine"}})


def test_fine_solves_are_foretold_and_paid_once_for_each_noise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("S3SEARCH_CACHE", str(tmp_path / "cache"))
    config, listener = _fine(tmp_path), _Listener()
    launch(config, listener)
    told = listener.heard[0]
    assert isinstance(told, CostForecast)
    with open_study(config.storage.url, "t") as store:
        status, frame = status_of(store), evaluations_frame(store)
    spent = {name: own["network_calls"] for name, own in status["ledger"].items()}
    finals = int(frame["n_images"][frame["rung"] == "finals"].iloc[0])
    blocks = 2 + -(-finals // 100)  # of the search's noise and of that of the finals
    assert spent["solves"] == told.network_calls["solves"] == blocks * 100 * 32
    assert spent["held_out_solves"] == told.network_calls["held_out_solves"] == 300 * 32
    within = [name for name in spent if name not in ("validation", "held_out_solves")]
    assert sum(spent[name] for name in within) == pytest.approx(120 * 200 * 3, rel=0.1)
    assert status["network_calls"] == sum(spent.values())
    lines = list(forecast_lines(told))
    assert "solving noises finely" in lines[0] and "solving unseen noises finely" in lines[0]
    again = _Listener()
    launch(config, again)
    assert again.heard == []  # their answers are in the database


def test_solves_that_are_kept_cost_nothing_and_change_no_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("S3SEARCH_CACHE", str(tmp_path / "cache"))
    found = []
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        config = _fine(tmp_path / folder)
        launch(config, lambda _: None)
        with open_study(config.storage.url, "t") as store:
            found.append((status_of(store)["ledger"], evaluations_frame(store)))
    (first, one), (second, two) = found
    assert first["solves"]["network_calls"] > 0
    assert second["solves"]["network_calls"] == second["held_out_solves"]["network_calls"] == 0
    assert list(one["schedule_id"]) == list(two["schedule_id"])
    assert list(one["value"]) == list(two["value"])


def test_a_second_metric_alone_needs_no_solve_of_a_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("S3SEARCH_CACHE", str(tmp_path / "cache"))
    second = 'validation.metric={score = "psnr", target = "fine"}'
    config = study_config(tmp_path, second, "search.check=false")
    launch(config, lambda _: None)
    with open_study(config.storage.url, "t") as store:
        ledger = status_of(store)["ledger"]
    assert "solves" not in ledger
    assert ledger["held_out_solves"]["network_calls"] == 100 * 32
    assert len(list((tmp_path / "cache" / "solves").iterdir())) == 1


def test_the_time_left_is_that_of_everything_still_to_come(tmp_path: Path) -> None:
    config = study_config(tmp_path, *S3, "model.seconds=0.002", "validation.n_images=4000")
    told: list[Progress] = []

    def stop(now: Progress) -> None:
        told.append(now)
        if now.stage == "finals":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        launch(config, stop)
    last = told[-1]
    assert last.seconds_left is not None
    assert last.seconds_left * last.images_per_second > 4000 * 10  # a dozen are validated
    assert last.share is not None
    assert 0.8 < last.share <= 1.0
    with open_study(config.storage.url, "t") as store:
        store.set_state("searching")  # as it was
        seen = look(store).progress
    assert (seen.budget, seen.share) == (last.budget, pytest.approx(last.share))


@pytest.mark.parametrize("algorithm", ["s3", "evolution"])
def test_a_finished_study_reads_a_hundred_per_cent(tmp_path: Path, algorithm: str) -> None:
    config = study_config(tmp_path, f"search.algorithm={algorithm}", "search.evaluations=9")
    told: list[Progress] = []
    launch(config, told.append)
    assert told[-1].share == 1.0
    with open_study(config.storage.url, "t") as store:
        assert look(store).progress.share == status_of(store)["budget_share"] == 1.0
    assert all(now.share is not None and 0 <= now.share <= 1 for now in told)
    shares = [now.share for now in told if now.share is not None]
    assert shares == sorted(shares) or algorithm != "s3"  # the others' seeds come on top


def test_no_more_schedules_are_validated_than_were_foretold(tmp_path: Path) -> None:
    config = study_config(tmp_path, "space.nfe=[3, 5]", "validation.finalists=4")
    (three, five) = to_validate(config, _seeds(3, 5)).values()
    assert 4 + 3 < three <= five
    without = study_config(tmp_path, "space.nfe=[3, 5]", "validation.baselines=false")
    assert to_validate(without, _seeds(3, 5)) == {3: 2, 5: 2}


def test_a_dry_run_says_minutes_and_writes_nothing(tmp_path: Path, cli: Cli) -> None:
    path = study_file(tmp_path)
    said = cli("launch", path, "--dry-run")
    assert (said.code, said.err) == (0, "")
    lines = said.out.splitlines()
    assert lines[0].startswith("costs about ")
    assert "network calls (images times calls): trying published samplers " in lines[0]
    assert lines[1].startswith("final check: 60 held-out images of each of at most ")
    assert "on 1 worker, by a measured batch: trying published samplers " in lines[2]
    found = cli("launch", path, "--dry-run", "--json").json
    assert found["network_calls"]["search"] == 6 * 30 * 3
    assert found["minutes"] > 0
    assert found["seconds"].keys() == found["network_calls"].keys()
    assert not (tmp_path / "study.db").exists()


def test_a_dry_run_of_a_model_that_takes_its_time_is_about_right(tmp_path: Path) -> None:
    config = study_config(tmp_path, "model.seconds=0.05", "search.evaluations=20")
    found = dry_run(config)
    assert found.seconds is not None
    images = found.network_calls["search"] / 3
    calls = 3 * 0.05  # of the one batch that an evaluation of 30 images is
    assert found.seconds["search"] == pytest.approx(images / 30 * calls, rel=0.5)


def test_a_budget_of_time_has_no_calls_of_a_search(tmp_path: Path) -> None:
    config = study_config(tmp_path)
    search = config.search.model_copy(update={"evaluations": None, "wall_seconds": 7200.0})
    found = dry_run(config.model_copy(update={"search": search}))
    assert list(found.network_calls) == ["validation"]
    assert "the search as many as 7,200 wall seconds allow" in next(iter(forecast_lines(found)))


def test_the_lines_have_all_that_is_known() -> None:
    found = CostForecast(
        budget="300 evaluations x 1,000 images",
        network_calls={
            "baselines": 225_000,
            "search": 9_999,
            "polish": 0,
            "validation": 1_050_000,
        },
        validated=21,
        held_out_images=10_000,
        real_images=10_000,
        spent=12_345,
        n_workers=8,
        notes=("6 of 8 GPUs stay idle",),
        seconds={"baselines": 4800.0, "search": 480.0, "validation": 48_000.0},
    )
    assert list(forecast_lines(found)) == [
        "costs about 1.28 million network calls (images times calls): trying published samplers "
        "225 thousand, breeding 9,999, final check on unseen noise 1.05 million",
        "final check: 10,000 held-out images of each of at most 21 schedules, and 10,000 real "
        "images, without a call",
        "of these 12.3 thousand network calls are made already",
        "about 1 h 51 min on 8 workers, by a measured batch: trying published samplers 10:00 min, "
        "breeding 1:00 min, final check on unseen noise 1 h 40 min",
        "6 of 8 GPUs stay idle",
    ]
    assert json.dumps(found.minutes)
