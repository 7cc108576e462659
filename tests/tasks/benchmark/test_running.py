"""A small benchmark on the plug-in model: what it counts, what it runs again, what it refuses."""

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import sqlalchemy as sa

from s3search.cli import run as run_cli
from s3search.errors import InvalidConfig, StudyConflict
from s3search.processes import edm
from s3search.run.baselines import known_baselines
from s3search.run.launching import launch_on
from s3search.tasks.benchmark.plan import PUBLISHED, BenchmarkOptions, BenchmarkPlan, make_plan
from s3search.tasks.benchmark.results import Row, read_rows
from s3search.tasks.benchmark.running import Made, run
from tests.support.studies import study_file

SETS = ("search.n_images=20", "validation.n_images=40")
CHOICES = BenchmarkOptions(
    nfe=(1,), n_seeds=1, budgets=(4, 6), algorithms=("s3", "random"), ladder=False, sets=SETS
)

Cli = Callable[..., tuple[int, str, str]]


def _plan(folder: Path, choices: BenchmarkOptions = CHOICES) -> BenchmarkPlan:
    return make_plan(study_file(folder), folder, choices)


def _made(plan: BenchmarkPlan) -> list[Made]:
    made: list[Made] = []
    run(plan, made.append)
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished benchmark: published solvers, s3 and random search with budgets 4 and 6."""
    path = tmp_path_factory.mktemp("bench")
    assert [m.is_new for m in _made(_plan(path))] == [True] * 5
    return path


def _table(folder: Path, name: str) -> pd.DataFrame:
    engine = sa.create_engine(f"sqlite:///{folder}/nfe-1.db")
    query = f"select t.*, s.name from {name} t join s3search_studies s on s.id = t.study_id"
    with engine.connect() as connection:
        frame = pd.read_sql(sa.text(query), connection)
    engine.dispose()
    return frame


def _row(rows: list[Row], method: str, budget: int | None) -> Row:
    (row,) = (r for r in rows if (r.method, r.budget) == (method, budget))
    return row


def test_network_calls_are_those_of_the_database_but_for_validation(folder: Path) -> None:
    evaluations, jobs = _table(folder, "s3search_evaluations"), _table(folder, "s3search_jobs")
    rows = read_rows(folder)
    for row in rows:
        if row.method == "random" and row.budget == 4:
            continue
        own = evaluations[evaluations["name"] == row.study]
        searched = own[own["rung"] != "validation"]
        asked = jobs[jobs["name"] == row.study]
        calls = (searched["n_images"] * row.nfe).sum() + asked["network_calls"].sum()
        assert row.network_calls == calls > 0
    assert len(rows) == 5
    assert len(jobs[jobs["name"].str.startswith("s3,")]) > 0


def test_a_smaller_budget_of_a_resumed_search_is_the_beginning_of_the_larger(folder: Path) -> None:
    rows = read_rows(folder)
    small, large = (_row(rows, "random", budget) for budget in (4, 6))
    assert small.study == large.study
    assert (small.measured, large.measured) == (4, 6)
    assert (small.network_calls, large.network_calls) == (4 * 20, 6 * 20)
    evaluations = _table(folder, "s3search_evaluations")
    searched = evaluations[
        (evaluations["name"] == small.study) & (evaluations["rung"] == "search")
    ]
    for row in (small, large):
        first = searched.sort_values("id").head(row.budget or 0)
        assert row.schedule_id == first.loc[first["value"].idxmin(), "schedule_id"]


def test_the_answer_is_a_held_out_measurement_of_a_searched_schedule(folder: Path) -> None:
    evaluations = _table(folder, "s3search_evaluations")
    proposals = _table(folder, "s3search_proposals")
    for row in read_rows(folder):
        held_out = evaluations[
            (evaluations["name"] == row.study)
            & (evaluations["rung"] == "validation")
            & (evaluations["schedule_id"] == row.schedule_id)
        ]
        assert held_out["value"].tolist() == [row.held_out]
        assert held_out["noise_seed"].tolist() == ["1"]
        same = (proposals["name"] == row.study) & (proposals["schedule_id"] == row.schedule_id)
        is_baseline = proposals[same]["origin"].str.startswith("baseline").tolist()
        assert is_baseline == [row.method == PUBLISHED]


def test_published_solvers_are_measured_once_and_stand_beside_every_row(folder: Path) -> None:
    rows = read_rows(folder)
    best = _row(rows, PUBLISHED, None).held_out
    assert best is not None
    assert {row.best_published for row in rows} == {best}
    evaluations = _table(folder, "s3search_evaluations")
    proposals = _table(folder, "s3search_proposals")
    published = proposals[proposals["name"].str.startswith(PUBLISHED)]
    known = known_baselines(None, edm(), 1).trials
    assert set(published["schedule_id"]) == {trial.id for trial in known}
    validated = evaluations[evaluations["rung"] == "validation"]
    assert validated[validated["name"].str.startswith(PUBLISHED)]["value"].min() == best
    assert (validated.groupby("name").size().filter(like="s3,") == 1).all()


def test_seconds_of_the_driver_are_what_the_worker_leaves(folder: Path) -> None:
    for row in read_rows(folder):
        assert 0 < row.worker_seconds < row.wall_seconds
        assert row.driver_seconds == pytest.approx(row.wall_seconds - row.worker_seconds)
        assert row.driver_share == pytest.approx(row.driver_seconds / row.wall_seconds)


def test_a_finished_benchmark_runs_nothing_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = read_rows(folder)
    monkeypatch.setattr("s3search.tasks.benchmark.running.workers", None)
    made = _made(_plan(folder))
    assert [m.is_new for m in made] == [False] * 5
    assert read_rows(folder) == before


def test_a_larger_budget_goes_on_and_a_smaller_one_is_refused(tmp_path: Path) -> None:
    choices = BenchmarkOptions(
        nfe=(1,), n_seeds=1, budgets=(4,), algorithms=("random",), sets=SETS
    )
    _made(_plan(tmp_path, choices))
    more = BenchmarkOptions(nfe=(1,), n_seeds=1, budgets=(4, 5), algorithms=("random",), sets=SETS)
    assert [m.is_new for m in _made(_plan(tmp_path, more))] == [False, False, True]
    fewer = BenchmarkOptions(nfe=(1,), n_seeds=1, budgets=(2,), algorithms=("random",), sets=SETS)
    with pytest.raises(InvalidConfig, match=r"random has gone on to 5 evaluations .* asked for 2"):
        _made(_plan(tmp_path, fewer))
    other = BenchmarkOptions(
        nfe=(1,),
        n_seeds=1,
        budgets=(6,),
        algorithms=("random",),
        sets=("search.n_images=30", "validation.n_images=40"),
    )
    with pytest.raises(StudyConflict, match=r"another benchmark.*n_images = 20.*another folder"):
        _made(_plan(tmp_path, other))


def test_an_interrupted_benchmark_keeps_what_it_took_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choices = BenchmarkOptions(
        nfe=(1,), n_seeds=1, budgets=(4,), algorithms=("random",), sets=SETS
    )

    def stopped(*arguments: object) -> None:
        launch_on(*arguments)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr("s3search.tasks.benchmark.running.launch_on", stopped)
    with pytest.raises(KeyboardInterrupt):
        _made(_plan(tmp_path, choices))
    assert read_rows(tmp_path) == []
    n_before = len(_table(tmp_path, "s3search_evaluations"))
    monkeypatch.setattr("s3search.tasks.benchmark.running.launch_on", launch_on)
    published, _ = _made(_plan(tmp_path, choices))
    assert published.is_new
    evaluations = _table(tmp_path, "s3search_evaluations")
    assert len(evaluations[evaluations["name"] == published.row.study]) == n_before
    assert published.row.wall_seconds > published.row.worker_seconds > 0


def test_the_plan_is_every_method_at_every_budget(tmp_path: Path) -> None:
    choices = BenchmarkOptions(nfe=(5, 3), n_seeds=2, first_seed=4, algorithms=("s3", "usf"))
    plan = _plan(tmp_path, choices)
    wanted = list(plan.measurements())
    assert {(m.nfe, m.seed) for m in wanted} == {(3, 4), (3, 5), (5, 4), (5, 5)}
    one = [(m.method.label, m.budget) for m in wanted if (m.nfe, m.seed) == (3, 4)]
    rungs = [
        "without ladder",
        *(f"up to {r}" for r in ("gaussian", "mixture", "race", "predictor")),
    ]
    assert plan.budgets == (1, 1, 3, 6)  # an eighth, a quarter, half and all of the file's six
    assert one == [
        (PUBLISHED, None),
        *((f"s3 {rung}", 6) for rung in rungs),
        *(("s3", budget) for budget in (1, 3, 6)),
        *(("usf", budget) for budget in (1, 3, 6)),
    ]
    names = {(m.study, m.budget if m.method.label == "s3" else None) for m in wanted}
    assert len({name for name, _ in names}) == len(names)


def test_without_a_study_file_it_is_the_digits_on_three_numbers_of_calls(tmp_path: Path) -> None:
    plan = make_plan(None, tmp_path, BenchmarkOptions())
    assert (plan.nfe, plan.seeds, plan.budgets) == ((3, 5, 8), (0, 1, 2), (37, 75, 150, 300))
    configs = [plan.config(m) for m in plan.measurements()]
    assert {c.model.loader for c in configs} == {"digits"}
    assert {c.cluster.address for c in configs} == {"inline"}
    assert {(c.search.n_images, c.validation.n_images) for c in configs} == {(1000, 10_000)}
    assert {c.search.algorithm for c in configs if c.search.baselines} == {"s3", "random"}
    quick = make_plan(None, tmp_path, BenchmarkOptions(is_quick=True, sets=("search.n_images=7",)))
    assert (quick.nfe, quick.seeds, quick.budgets) == ((3,), (0,), (2, 5, 10, 20))
    assert (quick.base.search.n_images, quick.base.validation.n_images) == (7, 500)


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Cli:
    """Runs ``s3search tools bench`` in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def said(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["s3search", "tools", "bench", *map(str, words)])
        capfd.readouterr()
        code = run_cli()
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return said


def test_the_command_writes_rows_table_and_pictures(tmp_path: Path, cli: Cli) -> None:
    words = [study_file(tmp_path), "-o", "out", "--seeds", 1, "--nfe", 1, "--json"]
    sets = [word for each in SETS for word in ("--set", each)]
    code, out, err = cli(*words, "--budget", 12, "--algorithm", "s3", *sets)
    assert code == 0, err
    said = json.loads(out)
    names = ["results.csv", "table.md", "quality.png", "ladder.png"]
    assert [Path(file).name for file in said["files"]] == names
    assert all(Path(file).stat().st_size > 0 for file in said["files"])
    with Path("out/results.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(said["results"]) == 1 + 5 + 1
    assert "[7/7] NFE 1, seed 0, s3, budget 12: " in err
    code, out, err = cli(*words, "--budget", 12, "--algorithm", "s3", *sets)
    assert (code, json.loads(out)) == (0, said)
    assert err.count("done before") == 7


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--algorithm", "utf"], "unknown algorithm 'utf'; did you mean 'usf'?"),
        (["--nfe", "0"], "space.nfe: nfe lists different numbers of network calls from 1 to 100"),
        (["--budget", "0"], "Invalid value for '--budget'"),
        (["--address", "nowhere"], "address='nowhere' is no place to run workers"),
        (["--set", "search.n_image=5"], "search.n_image: unknown key; did you mean 'n_images'?"),
        (["missing.toml"], "missing.toml: cannot be read"),
        (["-o", "file/folder"], "cannot make the folder file/folder"),
    ],
)
def test_wrong_input_is_one_sentence_and_code_two(
    tmp_path: Path, cli: Cli, words: list[str], sentence: str
) -> None:
    (tmp_path / "file").touch()
    code, out, err = cli(*words)
    assert (code, out) == (2, "")
    assert sentence in " ".join(err.split())
    assert err.count("error: ") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_study_file_with_a_budget_of_time_needs_budgets(tmp_path: Path, cli: Cli) -> None:
    file = study_file(tmp_path)
    file.write_text(file.read_text().replace("evaluations = 6", "wall_seconds = 5"))
    code, _, err = cli(file)
    assert code == 2
    assert "give some with --budget" in err
