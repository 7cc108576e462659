"""What people run who have not searched is measured first, whole and always, and validated."""

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from s3search.models.diffusers.scheduler_config import OwnSampler
from s3search.processes import (
    NoiseProcess,
    edm,
    flow,
    vp_cosine,
    vp_discrete,
    vp_linear,
)
from s3search.run.baselines import baselines_of_before, known_baselines
from s3search.run.launching import launch
from s3search.run.prepare import baseline_seeds, begins_with_stock
from s3search.schedules.published.baselines import (
    published_solvers,
    published_solvers_of_before,
)
from s3search.search.algorithms.s3 import baseline_share
from s3search.search.questions import Rung
from s3search.search.trial import Origin, OriginKind, of_library, of_pipeline
from s3search.study.database.store import open_study
from s3search.study.database.tables import EVALUATIONS, NOTES
from s3search.study.results.coverage import BASELINES
from s3search.study.results.frame import evaluations_frame, finalists
from s3search.study.results.progress import Progress
from tests.support.studies import content, searched_study, study_config

K_DIFFUSION = [
    f"k-diffusion {name}" for name in ("euler", "heun", "dpmpp_2m", "dpm_2", "lms", "dpmpp_2s")
]
OF_A_TABLE = [
    f"diffusers {name}Scheduler"
    for name in (
        "DDIM",
        "DPMSolverMultistep",
        "DPMSolverSinglestep",
        "UniPCMultistep",
        "DEISMultistep",
        "EulerDiscrete",
        "HeunDiscrete",
        "KDPM2Discrete",
        "LMSDiscrete",
    )
]
OF_FLOWS = [
    "diffusers DPMSolverMultistepScheduler",
    "diffusers UniPCMultistepScheduler",
    "diffusers FlowMatchEulerDiscreteScheduler",
    "diffusers FlowMatchHeunDiscreteScheduler",
]
SOLVERS = tuple(dict.fromkeys(each.solver for each in published_solvers(edm(), 5)))
TINY = ("search.algorithm='s3'", "search.evaluations=20", "search.n_images=100")


# -- which there are -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("process", "expected"),
    [
        (vp_discrete(), OF_A_TABLE),
        (vp_linear(), OF_A_TABLE),
        (vp_cosine(), [name for name in OF_A_TABLE if "KDPM2" not in name]),
        (edm(), K_DIFFUSION),
        (flow(), OF_FLOWS),
    ],
    ids=["vp_discrete", "vp_linear", "vp_cosine", "edm", "flow"],
)
def test_the_stock_solvers_come_before_all_others(
    process: NoiseProcess, expected: list[str]
) -> None:
    known = known_baselines(None, process, 5)
    assert [trial.origin.label for trial in known.stock] == expected
    assert known.trials[: len(known.stock)] == known.stock
    assert [t.origin.is_stock for t in known.trials].count(True) == len(expected)
    assert {trial.nfe for trial in known.trials} == {5}
    assert all(trial.schedule.process == process for trial in known.trials)
    assert len({trial.key for trial in known.trials}) == len(known.trials) > 100
    assert all(known.missing.values())
    note = known.note
    assert note == {
        "nfe": 5,
        "known": len(known.trials),
        "stock": expected,
        "solvers": list(SOLVERS),
        "missing": dict(known.missing),
    }


def test_samplers_with_noise_are_baselines_where_the_space_has_noise() -> None:
    plain, noisy = (known_baselines(None, edm(), 5, noise=noise) for noise in (False, True))
    assert not any(trial.schedule.is_stochastic for trial in plain.trials)
    added = {t.origin.solver: t for t in noisy.usual if t.schedule.is_stochastic}
    assert {"Euler ancestral (DDPM)", "SDE-DPM-Solver++(2M)"} <= added.keys()
    assert all(trial.origin.is_baseline for trial in added.values())
    assert [t.id for t in noisy.trials if not t.schedule.is_stochastic] == [
        trial.id for trial in plain.trials
    ]
    assert set(added) <= set(noisy.note["solvers"])


def test_one_of_every_published_solver_follows_the_stock_ones() -> None:
    known = known_baselines(None, vp_discrete(), 4)
    solvers = {trial.origin.solver for trial in known.published}
    usual = known.usual[len(known.stock) :]
    assert known.trials[: len(known.usual)] == known.usual
    of_others = {each.key: each.origin.solver for each in known.usual}
    for solver in solvers - {trial.origin.solver for trial in usual}:  # its usual one is another's
        assert any(t.key in of_others for t in known.published if t.origin.solver == solver)
    assert known.unmeasured(known.stock) == list(usual)
    assert known.unmeasured(known.usual) == []


def test_a_solver_that_was_stopped_every_time_is_measured_whole_where_it_was_best() -> None:
    known = known_baselines(None, edm(), 4)
    solver = "iPNDM-3"
    *_, worse, best = (trial for trial in known.published if trial.origin.solver == solver)
    others = [trial for trial in known.usual if trial.origin.solver != solver]
    assert known.unmeasured(others, {worse: 3.0, best: 2.0}) == [best]
    assert known.unmeasured([*others, worse], {best: 2.0}) == []
    assert [trial.origin.solver for trial in known.unmeasured(others)] == [solver]


def test_a_study_validates_a_solver_that_was_stopped_every_time(tmp_path: Path) -> None:
    config = searched_study(tmp_path, *TINY)
    known = known_baselines(None, edm(), 3)
    solver = known.usual[-1].origin.solver
    with open_study(config.storage.url, "t") as store:
        of_solver = [each.id for each in store.trials() if each.origin.solver == solver]
    assert of_solver
    engine = sa.create_engine(config.storage.url)
    with engine.begin() as connection:  # as if all of its schedules had been stopped
        is_it = EVALUATIONS.c.schedule_id.in_(of_solver)
        validated = EVALUATIONS.c.rung == Rung.VALIDATION.value
        connection.execute(EVALUATIONS.delete().where(is_it, validated))
        stopped = {"rung": Rung.STOPPED.value, "n_images": 50}
        connection.execute(EVALUATIONS.update().where(is_it).values(**stopped))
    engine.dispose()
    launch(config, lambda _: None)
    with open_study(config.storage.url, "t") as store:
        rows = evaluations_frame(store)
    validated_rows = rows[rows["rung"] == Rung.VALIDATION.value]
    assert solver in set(validated_rows["solver"])


def test_the_stock_solvers_run_on_the_other_spacings_that_they_have() -> None:
    variants = {
        trial.origin.variant
        for trial in known_baselines(None, vp_discrete(), 5).trials
        if str(trial.origin.solver).startswith("diffusers ")
    }
    spacings = {"leading", "trailing", "linspace", "karras", "exponential", "beta"}
    assert variants <= {"", *spacings}
    assert {"leading", "trailing", "karras", "exponential", "beta"} <= variants
    shifted = {
        (trial.origin.solver, trial.origin.variant)
        for trial in known_baselines(None, flow(), 5).trials
    }
    assert {(name, "shift 3") for name in OF_FLOWS} <= shifted


def test_a_stored_origin_says_whether_it_is_stock() -> None:
    for origin, is_stock in (
        (of_library("diffusers", "DDIMScheduler"), True),
        (of_library("diffusers", "DDIMScheduler", nfe=5), True),
        (of_library("k-diffusion", "euler", "exponential"), False),
        (of_library("k-diffusion", "euler", "exponential", nfe=5), False),
        (of_pipeline("DDPMScheduler", "without its noise", 5), True),
    ):
        read = Origin.of_text(origin.text)
        assert (read.kind, read.label, read.solver) == (origin.kind, origin.label, origin.solver)
        assert read.is_stock is origin.is_stock is is_stock
        assert read.is_baseline
    of_before = Origin.of_text("baseline: DDIMScheduler, pipeline's config")
    assert of_before.kind is OriginKind.PUBLISHED
    assert not Origin.of_text("diffusers DDIMScheduler").is_stock  # found by a search


# -- when they are measured ----------------------------------------------------------------


def test_a_tiny_search_measures_all_that_is_stock_first_and_whole(tmp_path: Path) -> None:
    config = searched_study(tmp_path, *TINY)
    with open_study(config.storage.url, "t") as store:
        trials, frame = store.trials(), evaluations_frame(store)
        ((_, note),) = store.notes(BASELINES)
    labels = [trial.origin.label for trial in trials]
    assert labels[: len(K_DIFFUSION)] == note["stock"] == K_DIFFUSION
    assert note["nfe"] == 3
    of_search = frame[(frame["rung"] == Rung.SEARCH.value) & frame["is_stock"]]
    assert set(of_search["n_images"]) == {100}
    assert len(of_search) == len(K_DIFFUSION)


def test_a_search_of_numbered_trials_measures_them_beyond_its_budget(tmp_path: Path) -> None:
    config = study_config(tmp_path, "search.evaluations=2", "search.algorithm='random'")
    launch(config, lambda _: None)
    stock = known_baselines(None, edm(), 3)
    with open_study(config.storage.url, "t") as store:
        trials = store.trials()
    n_usual = len(stock.usual)
    assert [trial.id for trial in trials[:n_usual]] == [trial.id for trial in stock.usual]
    assert [trial.origin.is_baseline for trial in trials[n_usual:]] == [False, False]


@pytest.mark.parametrize(
    ("evaluations", "share"),
    [(0, 14.0), (5, 14 / 5), (20, 14 / 20), (60, 19 / 60), (300, 55 / 300), (1000, 0.16)],
)
def test_the_share_of_the_budget_that_goes_to_baselines_is_known(
    evaluations: int, share: float
) -> None:
    assert baseline_share(evaluations, n_stock=10, n_baselines=300) == pytest.approx(share)


# -- what is validated ---------------------------------------------------------------------


def test_every_solver_and_all_that_is_stock_is_validated(tmp_path: Path) -> None:
    config = searched_study(tmp_path, *TINY)
    known = known_baselines(None, edm(), 3)
    with open_study(config.storage.url, "t") as store:
        frame = evaluations_frame(store)
        chosen = finalists(frame, config)
    validated = set(frame[frame["rung"] == Rung.VALIDATION.value]["schedule_id"])
    assert set(chosen) <= validated
    assert {trial.id for trial in known.stock} <= validated
    solvers = set(frame[frame["schedule_id"].isin(validated)]["solver"])
    assert {trial.origin.solver for trial in known.usual} <= solvers
    before = content(config)
    launch(config, lambda _: None)
    assert content(config) == before


@pytest.mark.parametrize("key", ["search.baselines", "validation.baselines"])
def test_baselines_that_nobody_wants_are_not_measured_for_the_validation(
    tmp_path: Path, key: str
) -> None:
    config = study_config(tmp_path, *TINY, f"{key}=false")
    launch(config, lambda _: None)
    with open_study(config.storage.url, "t") as store:
        frame, notes = evaluations_frame(store), store.notes(BASELINES)
    assert len(notes) == (key == "validation.baselines")
    validated = frame[frame["rung"] == Rung.VALIDATION.value]
    assert not validated["is_baseline"].any()
    assert frame["is_stock"].sum() == sum(len(note["stock"]) for _, note in notes)


@pytest.mark.parametrize("before_the_end", [1, 11, 21])
def test_an_interruption_of_what_comes_last_changes_nothing(
    tmp_path: Path, undisturbed: tuple[dict[str, Any], int], before_the_end: int
) -> None:
    expected, n_results = undisturbed
    config = study_config(tmp_path, *TINY)

    def interrupt(progress: Progress) -> None:
        if _results(progress) >= n_results - before_the_end:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        launch(config, interrupt)
    launch(config, lambda _: None)
    assert content(config) == expected


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], int]:
    """What a tiny study holds that ran in one go, and how many results it had."""
    config = study_config(tmp_path_factory.mktemp("undisturbed"), *TINY)
    reports: list[Progress] = []
    launch(config, reports.append)
    return content(config), _results(reports[-1])


def _results(progress: Progress) -> int:
    """Measurements alone: a slow machine makes more reports, and asks for proxies more often."""
    return sum(spend.count for name, spend in progress.spend.items() if name in set(Rung))


# -- studies of before ---------------------------------------------------------------------


def test_trials_without_the_note_are_those_of_a_study_of_before(tmp_path: Path) -> None:
    config = study_config(tmp_path)
    assert begins_with_stock(config)  # there is none yet
    launch(config, lambda _: None)
    assert begins_with_stock(config)
    engine = sa.create_engine(config.storage.url)
    with engine.begin() as connection:
        connection.execute(NOTES.delete())
    engine.dispose()
    assert not begins_with_stock(config)


def test_a_study_of_before_has_its_seeds_in_the_order_that_they_had(tmp_path: Path) -> None:
    own = OwnSampler(scheduler="DDIMScheduler", config={"beta_schedule": "linear"})
    known = baselines_of_before(own, vp_discrete(), 4)
    made = published_solvers_of_before(vp_discrete(), 4)
    names = [f"{each.solver}, {each.variant}" for each in made]
    labels = [trial.origin.label for trial in known.trials]
    assert labels[0] == "DDIMScheduler of the pipeline"
    places = [names.index(label) for label in labels[1:]]
    assert places == sorted(places)
    assert len(baseline_seeds(study_config(tmp_path), [known])) == 6  # evaluations
    assert known.usual == ()
