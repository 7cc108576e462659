"""Searches by a score, a pair and other distances than Fréchet's; guards, second metrics."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
import torch
from torch import Tensor

import s3search
from s3search.errors import InvalidConfig
from s3search.evaluation.evaluator import Evaluator
from s3search.evaluation.record import CheckRequest, Population, Status
from s3search.evaluation.spec import EvaluatorSpec, MetricSpec
from s3search.models import digits
from s3search.processes import edm
from s3search.run.found import SearchResult
from s3search.run.guard_check import differs_from_0
from s3search.schedules import published
from s3search.schedules.schedule import Schedule
from s3search.search.direction import Direction
from s3search.search.guard import Guard
from s3search.search.questions import Measure, Measurement, Polish, Rung, measure
from s3search.search.trial import Origin, Trial, seeded
from s3search.study.database.store import open_study
from s3search.study.file.config import StudyConfig, parse_config
from s3search.study.results.frame import evaluations_frame, validated
from s3search.tasks.checking import check_study
from tests.metrics.extractors.models import save_clip
from tests.suites.pool_suite import start_ray
from tests.support import pipelines
from tests.support.live import small_search

ASKED = {"score": "tests.support.plugins:asked_digit"}
SCORE = MetricSpec(name=ASKED["score"], kind="score", direction=Direction.MAXIMIZE)
SCHEDULES = [published.ddim(edm(), nfe=4), published.unipc(edm(), nfe=4)]
SMALL: dict[str, Any] = {
    "nfe": 4,
    "evaluations": 12,
    "n_images": 80,
    "algorithm": "evolution",
    "search": {"batch": 4},
    "validation": {"n_images": 120, "finalists": 2},
    "progress": False,
}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database for the module's studies."""
    return f"sqlite:///{tmp_path_factory.mktemp('studies')}/study.db"


@pytest.fixture
def nothing_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No fine solves of other tests."""
    monkeypatch.setenv("S3SEARCH_CACHE", str(tmp_path))


def _search(url: str, **changes: Any) -> SearchResult:
    asked = {
        **SMALL,
        "storage": url,
        "name": "asked digit",
        "metric": {**ASKED, "guard": [{"features": "digits", "at_most": 1.02}]},
        "reference": "digits",
        "validation_metric": {"kind": "mind", "features": "digits"},
    }
    return s3search.search("digits", **{**asked, **changes})


@pytest.fixture(scope="module")
def found(url: str) -> SearchResult:
    """A search for the digit that was asked for, which may not leave the real ones."""
    return _search(url)


def _questions(n_images: int = 60, thresholds: Any = ()) -> tuple[Measure, ...]:
    return tuple(
        measure(s, rung=Rung.SEARCH, n_images=n_images, noise_seed=3, thresholds=thresholds)
        for s in SCHEDULES
    )


# -- a score that is maximised ---------------------------------------------------------------


def test_the_best_is_the_one_with_the_most(found: SearchResult, url: str) -> None:
    with open_study(url, "asked digit") as store:
        frame = evaluations_frame(store)
        scored = validated(frame, store.config)
    whole = frame[frame["rung"] == "search"]
    assert (whole["value"] < 0.0).all()  # logarithms of probabilities, as they are
    assert (whole["metric"] == "score").all()
    kept = whole[~whole["breaks_guard"] & ~whole["is_baseline"]]
    assert found.status["best"]["4"]["search"] == kept["value"].max() if len(kept) else True
    published_ones = [row for row in scored if row.is_baseline]
    (against,) = found.comparison["against_published"]
    best = max(published_ones, key=lambda row: row.value)
    assert against["published"] == best.name
    assert against["ratio"] is None
    assert found.comparison["direction"] == "maximize"


def test_what_breaks_a_guard_neither_wins_nor_is_validated(found: SearchResult, url: str) -> None:
    with open_study(url, "asked digit") as store:
        frame = evaluations_frame(store)
        scored = validated(frame, store.config)
        says = [line for claim in found.comparison["claims"] for line in claim["says"]]
    whole = frame[frame["rung"] == "search"]
    broken = whole[whole["breaks_guard"] & ~whole["is_baseline"]]
    assert len(broken)  # it was tight enough to be broken
    at_the_end = frame[frame["rung"] == "validation"]
    assert not set(broken["schedule_id"]) & set(at_the_end["schedule_id"])
    assert not scored[0].broken
    assert any(line.startswith("guard digits: ") and line.endswith("kept") for line in says)
    values = [json.loads(row) for row in whole["guards"]]
    assert all(len(own) == 1 and own[0] > 0.0 for own in values)


def test_where_nothing_keeps_the_guards_that_is_what_is_said() -> None:
    """And not that nothing was validated, which would leave people to guess why."""
    strict = {"features": "digits", "at_most": 0.01}
    found = s3search.search(
        "digits",
        **SMALL,
        metric={"score": "psnr", "target": "fine", "guard": [strict]},
        reference="digits",
    )
    (claim,) = found.comparison["claims"]
    said = claim["says"][0]
    assert said.startswith("no schedule that the search found keeps the guards (digits): ")
    assert "break one on the search's noise; allow more, or raise the budget; " in said
    assert "; the best published is " in said
    assert set(found.table["breaks"]) == {"digits"}  # also what is published: none is so near


def test_the_finals_and_claims_measure_guards_beside_a_published_one(url: str) -> None:
    """A limit that was only known on the search's noise would say nothing of other images."""
    tight = {**ASKED, "guard": [{"features": "digits", "at_most": 1.02}]}
    found = _search(url, name="finals", algorithm="s3", evaluations=24, metric=tight)
    with open_study(url, "finals") as store:
        frame = evaluations_frame(store)
    of_search, finals, held_out = (
        frame[frame["rung"] == rung] for rung in ("search", "finals", "validation")
    )
    is_before = of_search["id"] < finals["id"].min()  # more of them come before the validation
    published_ones = of_search[of_search["is_baseline"] & is_before]
    best = published_ones.loc[published_ones["value"].idxmax()]
    beside = finals[finals["is_baseline"]]
    assert list(beside["schedule_id"]) == [best["schedule_id"]]
    assert best["schedule_id"] in set(held_out["schedule_id"])
    (limit,) = (1.02 * value for value in json.loads(beside["guards"].iloc[0]))
    again = finals[~finals["is_baseline"]]
    values = again["guards"].map(lambda each: json.loads(each)[0])
    assert ((values > limit) == again["breaks_guard"]).all()
    out = set(again["schedule_id"][again["breaks_guard"]])
    assert not out & set(held_out["schedule_id"])
    (claim,) = found.comparison["claims"]
    tallest = held_out[held_out["is_baseline"]].sort_values("value").iloc[-1]
    told = json.loads(tallest["guards"])[0]
    name = Origin.of_text(tallest["origin"]).name
    said = [line for line in claim["says"] if line.startswith("guard digits: ")]
    assert len(said) == 1 or claim["says"][0].startswith("no schedule that the search found keeps")
    for line in said:
        assert f"beside {told:.4g} of {name}, the best published, on the same held-out" in line


def test_optuna_maximises_it_and_knows_what_is_infeasible(found: SearchResult, url: str) -> None:
    study = optuna.load_study(study_name="asked digit", storage=url)
    assert [each.name for each in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert study.metric_names == ["score@80 (tests.support.plugins:asked_digit)", "NFE"]
    constraints = [trial.system_attrs.get("constraints") for trial in study.trials]
    is_broken = [own is not None and own[0] > 0.0 for own in constraints]
    assert any(is_broken) and not all(is_broken)
    feasible = {trial.number for trial in study.best_trials}
    assert not feasible & {i for i, broken in enumerate(is_broken) if broken}


def test_the_second_metric_is_of_another_kind(found: SearchResult) -> None:
    (against,) = found.comparison["against_published"]
    assert against["witness"]["extractor"] == "digits-a"
    kinds = {row["witness"]["metric"] for row in found.comparison["rows"] if row["witness"]}
    assert kinds == {"mind"}
    assert "does not: real images: a score is of what was asked for" in repr(found)
    real = {each["metric"] for each in found.comparison["floor"]}
    assert real == {"frechet", "mind"}  # nobody can say what real images were asked for


def test_it_goes_on_where_it_was(found: SearchResult, url: str) -> None:
    again = _search(url)
    assert again.schedule.id == found.schedule.id
    pd.testing.assert_frame_equal(again.table, found.table)


@pytest.mark.cluster
def test_two_ray_workers_find_what_this_process_finds() -> None:
    """With a function of the program, and one that the workers import."""
    start_ray()

    def brightest(images: Tensor) -> Tensor:
        return -(images.mean(dim=(1, 2, 3)) - 0.1).abs()

    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    own = {**SMALL, "evaluations": 6, "reference": None, "features": None}
    try:
        alone = small_search("digits", **own, metric=brightest)
    finally:
        torch.set_num_threads(n_threads)
    workers = {"workers": "local", "cluster": {"workers": 2}}
    together = small_search("digits", **own, metric=brightest, **workers)
    pd.testing.assert_frame_equal(together.table, alone.table)
    named = small_search("digits", **own, metric=ASKED["score"], **workers)
    assert named.table["extractor"].unique().tolist() == [ASKED["score"]]


# -- on a worker -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["frechet", "kernel", "cmmd", "mind", "score"])
def test_a_population_is_measured_as_each_alone(kind: str) -> None:
    metric = SCORE if kind == "score" else MetricSpec(name="digits", kind=kind)
    guard = MetricSpec(name="digits", kind="kernel", where="metric.guard[0]")
    spec = EvaluatorSpec(model="digits", metric=metric, reference="digits", guards=(guard,))
    questions = _questions()
    together = Evaluator(spec)(Population(questions=questions))
    assert isinstance(together, tuple)
    for each, question in zip(together, questions, strict=True):
        assert isinstance(each, Measurement)
        alone = Evaluator(spec).evaluate(question)
        assert each.estimate == pytest.approx(alone.estimate, rel=1e-5)
        assert each.guards == pytest.approx(alone.guards, rel=1e-4)
        assert (each.metric, each.direction) == (kind, metric.direction)


def test_a_score_is_stopped_where_its_loss_is_above_the_threshold() -> None:
    evaluator = Evaluator(EvaluatorSpec(model="digits", metric=SCORE))
    whole = evaluator.evaluate(_questions(60, ((20, np.inf),))[0])
    assert whole.loss == -whole.estimate
    assert whole.losses == {20: -whole.path[20]}
    stopped = evaluator.evaluate(_questions(60, ((20, whole.losses[20] - 1e-6),))[0])
    assert (stopped.n_images, stopped.value, stopped.estimate) == (20, None, whole.path[20])
    passed = evaluator.evaluate(_questions(60, ((20, whole.losses[20] + 1e-6),))[0])
    assert passed.value == whole.value


def _polished(metric: MetricSpec, **changes: Any) -> tuple[float, float]:
    """The losses of a schedule on fresh noise before and after a short polish."""
    evaluator = Evaluator(EvaluatorSpec(model="digits", metric=metric, **changes))
    start = Trial.of(published.ddim(edm(), nfe=3), seeded("start"))
    request = Polish(trial=start, iterations=12, n_images=60, seed=0, noise_seed=11)
    made = evaluator.polish(request).made.schedule
    losses = [
        evaluator.evaluate(measure(s, rung=Rung.USER, n_images=300, noise_seed=5)).loss
        for s in (start.schedule, made)
    ]
    assert losses[0] is not None and losses[1] is not None
    return losses[0], losses[1]


@pytest.mark.parametrize(
    "metric",
    [
        SCORE,
        MetricSpec(name="psnr", kind="score", direction=Direction.MAXIMIZE, target="fine"),
        MetricSpec(name="digits", kind="kernel"),
        MetricSpec(name="digits", kind="mind"),
    ],
    ids=lambda metric: f"{metric.kind} {metric.name}",
)
def test_the_polish_follows_the_gradient_of_any_metric(metric: MetricSpec) -> None:
    before, after = _polished(metric, reference="digits")
    assert after < before


def test_a_polish_goes_back_until_it_keeps_its_guards() -> None:
    guard = MetricSpec(name="digits", where="metric.guard[0]")
    spec = EvaluatorSpec(model="digits", metric=SCORE, reference="digits", guards=(guard,))
    evaluator, start = Evaluator(spec), published.dpmpp_2m(edm(), nfe=4)
    request = Polish(
        trial=Trial.of(start, seeded("start")), iterations=16, n_images=80, seed=0, noise_seed=3
    )

    def seen(schedule: Schedule) -> tuple[float, float]:
        asked = measure(schedule, rung=Rung.SEARCH, n_images=800, noise_seed=9)
        found = evaluator.evaluate(asked)
        assert found.loss is not None
        return found.loss, found.guards[0]

    before, free = seen(start), seen(evaluator.polish(request).made.schedule)
    assert free[0] < before[0]
    assert free[1] > 1.1 * before[1]  # without a guard it leaves the real images
    limit = Guard(name="digits", direction=Direction.MINIMIZE, times=1.1)
    held = replace(request, guards=(limit,), beside=request.trial)
    assert held.key != request.key
    kept = seen(evaluator.polish(held).made.schedule)
    assert kept[1] < 1.1 * before[1]
    assert free[0] < kept[0] < before[0]
    strict = replace(limit, times=1e-6)
    none = evaluator.polish(replace(held, guards=(strict,))).made.schedule
    assert seen(none) == pytest.approx(before, rel=1e-6)


@pytest.mark.usefixtures("nothing_kept")
def test_a_polish_solves_finely_for_its_guards_alone_what_these_see() -> None:
    """Not the fresh images of every iteration, of which the loss needs no target."""
    guard = MetricSpec(
        name="psnr",
        kind="score",
        direction=Direction.MAXIMIZE,
        target="fine",
        where="metric.guard[0]",
    )
    spec = EvaluatorSpec(model="digits", metric=SCORE, reference="digits", guards=(guard,))
    evaluator, start = Evaluator(spec), Trial.of(published.dpmpp_2m(edm(), nfe=4), seeded("start"))
    limit = Guard(name="psnr", direction=Direction.MAXIMIZE, times=0.9)
    polish = Polish(trial=start, iterations=16, n_images=80, seed=0, noise_seed=3)
    assert evaluator.gradient_problem is None
    before = evaluator.noise.n_solved
    evaluator.polish(polish)
    assert evaluator.noise.n_solved == before
    reply = evaluator.polish(replace(polish, guards=(limit,), beside=start))
    assert evaluator.noise.n_solved == before + 160  # 2 checks of 80 images
    made = reply.made
    looks, rest = divmod(made.guard_images - 160 * 32 // 4, 160)
    assert (looks >= 2, rest) == (True, 0)  # the published one and the polished one at least
    assert reply.network_calls >= 16 * 80 * 4 * 2 + made.guard_images * 4
    assert Polish.of_json(Polish.to_json(made)) == made


@pytest.mark.usefixtures("nothing_kept")
def test_fine_targets_are_solved_once_for_each_noise() -> None:
    metric = MetricSpec(name="mse", kind="score", target="fine")
    evaluator = Evaluator(EvaluatorSpec(model="digits", metric=metric, batch_size=70))
    assert all(each.status is not Status.ERROR for each in evaluator(CheckRequest()))
    assert evaluator.noise.n_solved == 0  # a check makes none
    for question in _questions(150):
        assert evaluator.evaluate(question).value > 0.0
    assert evaluator.noise.n_solved == 200  # whole blocks of noise
    evaluator.images(SCHEDULES[0], 10, 99)
    assert evaluator.noise.n_solved == 200  # whoever compares nothing pays nothing
    fine = published.dpmpp_2m(edm(), nfe=32, end=published.End(rule=published.EndRule.DENOISE))
    question = measure(fine, rung=Rung.SEARCH, n_images=150, noise_seed=3)
    assert evaluator.evaluate(question).value == pytest.approx(0.0, abs=1e-9)


def test_the_network_never_sees_a_target_that_the_condition_hands_over() -> None:
    metric = MetricSpec(name="mse", kind="score", target="given")
    spec = EvaluatorSpec(model="tests.support.plugins:restoring", metric=metric)
    evaluator = Evaluator(spec)
    schedule = published.ddim(evaluator.denoiser.process, nfe=3)
    question = measure(schedule, rung=Rung.USER, n_images=40, noise_seed=0)
    found = evaluator.evaluate(question)
    noise = next(evaluator.noise.batches(0, 40, 40, with_targets=True))
    images = evaluator.images(schedule, 40, 0)
    by_hand = (images.clamp(-1, 1) - noise[1]["target"]).square().mean()
    assert found.value == pytest.approx(float(by_hand), rel=1e-5)
    evaluator.polish(
        Polish(
            trial=Trial.of(schedule, seeded("s")), iterations=2, n_images=8, seed=0, noise_seed=1
        )
    )
    assert not evaluator.denoiser.target_seen


def test_the_check_looks_at_a_score_too() -> None:
    found = Evaluator(EvaluatorSpec(model="digits", metric=SCORE))(CheckRequest())
    by_name = {each.check: each for each in found}
    assert by_name["score"].status.value == "ok"
    assert "to be maximized" in by_name["score"].message
    needy = MetricSpec(name="clip", kind="score", direction=Direction.MAXIMIZE)
    with pytest.raises(InvalidConfig, match=r"metric"):
        Evaluator(EvaluatorSpec(model="digits", metric=needy))


# -- text to image ---------------------------------------------------------------------------

PROMPTS = [f"a {colour} {thing}" for colour in ("red", "blue") for thing in "abcdefghij"]


def _pictures(folder: Path, clip: Path) -> StudyConfig:
    model = {"path": str(pipelines.stable_diffusion(folder / "sd")), "prompts": PROMPTS}
    return pipelines.study(
        folder,
        {**model, "held_out": 0.4},
        metric={
            "features": None,
            "score": "clip",
            "path": str(clip),
            "guard": [{"features": "tests.support.pipelines:pooled", "at_most": 1.5}],
        },
        search={"baselines": True, "evaluations": 2},
    )


@pytest.mark.filterwarnings("ignore::FutureWarning:diffusers.*", "ignore::DeprecationWarning")
def test_pictures_of_texts_are_scored_by_their_own_texts(tmp_path: Path) -> None:
    clip = save_clip(tmp_path / "clip")
    (tmp_path / "sd").mkdir()
    config = _pictures(tmp_path, clip)
    found = s3search.search(config, progress=False)
    with open_study(config.storage.url, "t") as store:
        frame = evaluations_frame(store)
    assert frame["extractor"].str.startswith("clip-").all()
    assert (frame["metric"] == "score").all()
    assert frame["guards"].notna().sum() == (frame["state"] == "complete").sum()
    evaluator = Evaluator(config.evaluator_spec)
    question = frame[frame["rung"] == "validation"].iloc[0]
    with open_study(config.storage.url, "t") as store:
        schedule = store.schedule(question["schedule_id"])
    asked = measure(
        schedule, rung=Rung.VALIDATION, n_images=14, noise_seed=config.validation_noise_seed
    )
    assert evaluator.evaluate(asked).value == pytest.approx(question["value"], rel=1e-5)
    assert found.schedule.nfe == 3
    texts = {}
    for held_out in (False, True):
        drawn = evaluator.noise.batches(1, 14, 14, held_out=held_out)
        texts[held_out] = set(evaluator.denoiser.captions(**next(drawn)[1]))
    assert not texts[True] & texts[False]


# -- what cannot be --------------------------------------------------------------------------

TABLES: dict[str, Any] = {
    "study": {"name": "t"},
    "model": {"loader": "digits"},
    "space": {"nfe": [4]},
    "metric": {"features": "digits"},
    "reference": {"images": "digits"},
}


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        ({"kind": "score"}, r"metric: kind = 'score' needs score"),
        ({"kind": "mean", "features": "digits"}, r"metric\.kind: .*'score'"),
        ({"score": "psnr", "features": "digits"}, r"metric\.features: a score has none"),
        ({"kind": "kernel", "score": "psnr"}, r"metric\.score: kind = 'kernel' is a distance"),
        ({"features": "digits", "direction": "maximize"}, r"metric\.direction: is for kind"),
        ({"features": "digits", "target": "fine"}, r"metric\.target: is for kind"),
        ({"score": "psnr", "target": "rough"}, r"metric\.target: .*'fine' or 'given'"),
        ({"score": "psnr", "guard": [{"features": "digits"}]}, r"guard.*needs at_most"),
        (
            {"score": "psnr", "guard": [{"score": "psnr", "at_most": 1.1}]},
            r"guard.*maximized needs at_least",
        ),
        (
            {"score": "psnr", "guard": [{"score": "psnr", "at_least": 0.9, "worse_by": 1.0}]},
            r"guard.*or worse_by, by how much it may be worse, and nothing else",
        ),
    ],
)
def test_a_metric_that_cannot_be_is_refused(metric: Any, words: str) -> None:
    with pytest.raises(InvalidConfig, match=words):
        parse_config({**TABLES, "metric": metric})


def test_a_guard_that_is_a_multiple_of_what_may_be_0_is_refused() -> None:
    """A kernel distance is about 0 for good images, and 1.1 times that is no limit."""
    kernel = {"kind": "kernel", "features": "digits"}

    def searched(**limit: float) -> SearchResult:
        metric = {**ASKED, "guard": [{"features": "digits", "at_most": 9.0}, {**kernel, **limit}]}
        changes = {**SMALL, "nfe": 12, "evaluations": 1, "n_images": 40, "metric": metric}
        return s3search.search("digits", **changes, reference="digits")

    with pytest.raises(
        InvalidConfig, match=r"metric\.guard\[1\]\.at_most: kernel in dig"
    ) as raised:
        searched(at_most=1.1)
    said = str(raised.value)
    between = re.search(r"\(95 % (\S+) to (\S+)\) of 40 images, and so many times what may", said)
    assert between is not None and float(between[1]) <= 0.0
    worse_by = re.search(r"worse_by = (\S+),", said)
    assert worse_by is not None
    assert searched(worse_by=float(worse_by[1])).comparison["claims"]


def test_what_differs_from_0_depends_on_its_kind() -> None:
    for kind in ("score", "kernel"):
        assert differs_from_0(kind, (0.6, 1.4))
        assert not differs_from_0(kind, (-0.3, 0.5))
    assert differs_from_0("score", (-1.4, -0.6))  # as a logarithm of probabilities is
    assert not differs_from_0("kernel", (-1.4, -0.6))  # noise alone makes it negative


def test_a_guard_that_is_a_multiple_of_what_is_not_0_has_a_limit(tmp_path: Path) -> None:
    """Few calls make images whose log-probability is far from 0, and it may be negative."""
    guard = {**ASKED, "at_least": 0.9}
    tables = {**TABLES, "metric": {"features": "digits", "guard": [guard]}}
    config = parse_config(
        {**tables, "search": {"evaluations": 1, "n_images": 60}, "cluster": {"address": "inline"}}
    )
    (found,) = [each for each in check_study(config) if each.check == "limits of guards"]
    assert found.status is Status.OK
    assert "gives DPM-Solver++(2M) with 4 calls -" in found.message


def test_what_is_missing_beside_it_is_refused() -> None:
    without = {key: table for key, table in TABLES.items() if key != "reference"}
    with pytest.raises(InvalidConfig, match=r"reference: missing; a distance"):
        parse_config(without)
    assert parse_config({**without, "metric": {"score": "psnr"}}).reference is None
    guarded = {"score": "psnr", "guard": [{"features": "digits", "at_most": 1.1}]}
    with pytest.raises(InvalidConfig, match=r"search\.baselines = false"):
        parse_config(
            {**TABLES, "metric": guarded, "search": {"evaluations": 1, "baselines": False}}
        )


def test_a_second_metric_has_no_guards() -> None:
    second = {"features": "digits", "network": "b", "guard": [{"score": "mse", "at_most": 2.0}]}
    with pytest.raises(InvalidConfig, match=r"validation\.metric\.guard: a second metric chooses"):
        parse_config({**TABLES, "validation": {"metric": second}})


def test_usual_extractors_and_directions_are_filled_in() -> None:
    for kind, features in {"cmmd": "clip", "mind": "inception", "kernel": "inception"}.items():
        assert parse_config({**TABLES, "metric": {"kind": kind}}).metric.features == features
    for score, direction in {"lpips": "minimize", "psnr": "maximize", "a:b": "maximize"}.items():
        config = parse_config({**TABLES, "metric": {"score": score}})
        assert (config.metric.kind, config.direction.value) == ("score", direction)
        said = parse_config({**TABLES, "metric": {"score": score, "direction": direction}})
        assert said.identity == config.identity  # to say what is usual changes no study


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"metric": "psnr", "features": "digits"}, "features: a score of images has none"),
        ({"metric": 3}, r"metric: needs a score .*psnr.*found 3"),
        ({"metric": {"score": "psnr", "guard": "digits"}}, r"metric\.guard: needs a list"),
        ({"score": "psnr"}, "score: unknown keyword; here it is metric"),
        (
            {"metric": "kernal", "reference": "digits"},
            r"metric\.score: no built-in is called 'kernal'",
        ),
    ],
)
def test_keywords_that_do_not_fit_are_refused(keywords: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidConfig, match=words):
        s3search.search("digits", nfe=3, evaluations=1, progress=False, **keywords)


@pytest.mark.parametrize(
    ("score", "words"),
    [
        (lambda images: [1.0] * len(images), "returned list"),
        (lambda images, captions: images.mean(dim=(1, 2, 3)), "needs captions"),
    ],
)
def test_no_remedy_is_named_that_is_none(score: Any, words: str) -> None:
    """Without the check all of its measurements would fail."""
    with pytest.raises(InvalidConfig, match=words) as raised:
        s3search.search("digits", metric=score, nfe=3, evaluations=1, progress=False)
    assert "search.check" not in str(raised.value)


def test_a_schedule_is_evaluated_by_any_metric() -> None:
    judge = digits.features("b")

    def sure(images: Tensor) -> Tensor:
        return judge.logits(images).softmax(dim=1).amax(dim=1)

    found = s3search.evaluate(SCHEDULES[0], "digits", metric=sure, n_images=100)
    assert 0.0 < found.value < 1.0
    assert found.metric == "score"
    assert found.interval is not None and found.interval[0] < found.value < found.interval[1]
    half = (found.interval[1] - found.interval[0]) / 2.0
    assert found.standard_error is not None
    assert half == pytest.approx(2.09 * found.standard_error, rel=0.2)  # Student's t of 20 blocks
    distance = s3search.evaluate(
        SCHEDULES[0], "digits", metric="kernel", features="digits", reference="digits", n_images=60
    )
    assert distance.metric == "kernel"
