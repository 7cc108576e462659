"""What a study claims: no more than what it measured allows, and the same everywhere."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from s3search.run.launching import launch
from s3search.search.direction import Direction
from s3search.search.trial import Origin
from s3search.study.database.engine import connect_arguments
from s3search.study.database.store import open_study
from s3search.study.file.config import StudyConfig
from s3search.study.optuna.marks import EXPORTED
from s3search.study.results.claims import Claim, Verdict, claim_of, claims_of
from s3search.study.results.coverage import Coverage, least_measured
from s3search.study.results.exported import ExportedTrial
from s3search.study.results.frame import HeldOut, Scored, evaluations_frame, validated
from tests.support import measured
from tests.support.measured import FOUND, NFE, n_measured, settle
from tests.support.studies import study_config

BETTER = ("beats", "better", "times as far", "wins")
ALL = Coverage(measured=31, known=86, stock=("diffusers UniPC",), without={})


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished study that has measured every published solver."""
    folder = tmp_path_factory.mktemp("original")
    measured.finished(folder)
    return folder


@pytest.fixture
def config(original: Path, tmp_path: Path) -> StudyConfig:
    for file in original.iterdir():
        if file.is_file():
            shutil.copy(file, tmp_path)
    return study_config(tmp_path, *measured.overrides())


def _claim(config: StudyConfig) -> Claim:
    with open_study(config.storage.url, "t") as store:
        frame = evaluations_frame(store)
        return claims_of(store, frame, validated(frame, store.config))[NFE]


def _check_everywhere(
    claim: Claim, config: StudyConfig, folder: Path, capfd: pytest.CaptureFixture[str]
) -> Mapping[str, str]:
    """Every sentence once and whole in every place."""
    texts = measured.places(config, folder, capfd)
    assert len(texts) == 8
    for place, text in texts.items():
        for sentence in claim.says:
            assert text.count(" ".join(sentence.split())) == 1, (place, sentence)
    return texts


# -- where the stock solver loses, wins, ties, and was not measured --------------------------


def test_a_schedule_nearer_than_all_that_there_is_beats_it_everywhere(
    config: StudyConfig, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    stock, second, *_ = measured.published(config)
    settle(config, {stock: 0.4, second: 0.5}, others=0.7)
    measured.note(config, [stock])
    claim, n = _claim(config), n_measured(config)
    assert claim.verdict is Verdict.BEATS
    assert n > 20
    assert claim.says[0].startswith(
        f"the found schedule beats {stock}, the best of {n} published configurations "
        f"measured ({n} known): distance 0.2000 against 0.4000 in "
    )
    texts = _check_everywhere(claim, config, tmp_path, capfd)
    assert all("the found schedule beats" in text for text in texts.values())


def test_a_stock_solver_that_wins_is_said_to_win_and_exported(
    config: StudyConfig, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    stock = measured.published(config)[-1]
    settle(config, {stock: 0.1}, others=0.7)
    measured.note(config, [stock])
    claim = _claim(config)
    assert claim.verdict is Verdict.LOSES
    assert claim.says[0].startswith(f"the found schedule loses to {stock}, the best of ")
    assert claim.exported is not None
    assert (claim.exported.name, claim.exported.is_first) == (stock, False)
    texts = _check_everywhere(claim, config, tmp_path, capfd)
    assert not any("beats" in text for text in texts.values())
    against = claim.against_published
    assert against is not None and against["ratio"] == pytest.approx(0.5)


def test_a_tie_is_called_one_and_has_no_ratio_less_the_bias(
    config: StudyConfig, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    stock = measured.published(config)[0]
    settle(config, {stock: 0.21}, others=0.7, spread=0.05)
    measured.note(config, [stock])
    claim = _claim(config)
    assert claim.verdict is Verdict.UNDECIDED
    assert claim.says[0].startswith(
        f"held-out noise does not tell the found schedule from {stock}, the best of "
    )
    assert claim.first is not None and claim.first.less_real is not None
    assert claim.first.less_real["ratio"] is claim.first.less_real["ratio_95"] is None
    texts = _check_everywhere(claim, config, tmp_path, capfd)
    for text in texts.values():
        assert "without a ratio, as the difference may be 0" in text
        assert "the found schedule beats" not in text


@pytest.mark.parametrize("missing", ["stock", "known"])
def test_numbers_alone_stand_where_something_that_is_run_was_not_measured(
    config: StudyConfig, tmp_path: Path, capfd: pytest.CaptureFixture[str], missing: str
) -> None:
    stock, *_ = measured.published(config)
    settle(config, {stock: 0.4}, others=0.7)
    if missing == "stock":
        why = "not validated among the stock defaults: diffusers UniPC"
        remedy = "run `s3search compare STUDY --schedulers`"
        measured.note(config, [stock, "diffusers UniPC"])
    else:
        why = f"{n_measured(config)} of 300 configurations measured, 28 needed"
        remedy = "raise the budget and launch again"
        measured.note(config, [stock], known=300)
    claim = _claim(config)
    assert claim.verdict is Verdict.NOT_COVERED
    assert claim.says[0].startswith(f"the found schedule stands beside {stock}, the best of ")
    assert "distance 0.2000 against 0.4000" in claim.says[0]
    assert claim.says[1] == f"not enough for a verdict: {why}; {remedy}"
    texts = _check_everywhere(claim, config, tmp_path, capfd)
    assert not any("beats" in text for text in texts.values())
    assert not any(word in sentence for word in BETTER for sentence in claim.says)


def test_a_study_of_before_the_notes_covers_nothing(config: StudyConfig) -> None:
    settle(config, {}, others=0.7)
    measured.forget(config)
    claim, n = _claim(config), n_measured(config)
    assert claim.verdict is Verdict.NOT_COVERED
    assert f", the best of {n} published configurations measured: distance 0.2" in claim.says[0]
    assert claim.says[1] == (
        "not enough for a verdict: which published configurations there are was not recorded; "
        "a new study records it"
    )
    assert not any(word in sentence for word in BETTER for sentence in claim.says)


def test_a_published_solver_without_a_validated_schedule_is_a_gap(config: StudyConfig) -> None:
    stock, *others = measured.published(config)
    settle(config, {stock: 0.4}, others=0.7)
    measured.note(config, [stock])
    with open_study(config.storage.url, "t") as store:
        frame = evaluations_frame(store)
        gone = frame["solver"] == others[-1].split(",")[0]
        rest = frame[~(gone & (frame["rung"] == "validation"))]
        claim = claims_of(store, rest, validated(rest, store.config))[NFE]
    assert claim.verdict is Verdict.NOT_COVERED
    assert claim.coverage.gaps == (f"no validated schedule of {others[-1].split(',')[0]}",)


def test_what_cannot_be_had_at_these_calls_is_named_and_no_gap(config: StudyConfig) -> None:
    stock, *_ = measured.published(config)
    settle(config, {stock: 0.4}, others=0.7)
    measured.note(config, [stock], missing={"diffusers HeunDiscreteScheduler": "odd calls"})
    claim = _claim(config)
    assert claim.verdict is Verdict.BEATS
    assert (
        "stock solvers that are not listed, since they make the images of another one or never so "
        "many calls: "
        "diffusers HeunDiscreteScheduler"
    ) in claim.says
    assert claim.to_dict()["coverage"]["without"] == {
        "diffusers HeunDiscreteScheduler": "odd calls"
    }


# -- the exported trial and the first on the search's noise ----------------------------------


def _attributes(config: StudyConfig) -> dict[str, str]:
    """What trials say of being exported, by schedule id."""
    url = config.storage.url
    storage = optuna.storages.RDBStorage(url, engine_kwargs=connect_arguments(url))
    try:
        trials = optuna.load_study(study_name="t", storage=storage).get_trials()
    finally:
        storage.remove_session()
        storage.engine.dispose()
    marked = [trial for trial in trials if EXPORTED in trial.user_attrs]
    return {t.user_attrs["schedule_id"]: t.user_attrs[EXPORTED] for t in marked}


def test_optuna_s_best_trial_and_the_exported_one_say_which_they_are(
    config: StudyConfig,
) -> None:
    before = _claim(config).exported
    assert before is not None
    assert _attributes(config) == before.remarks  # as the first launch left them
    stock = measured.published(config)[-1]
    settle(config, {stock: 0.1}, others=0.7)
    launch(config, lambda _: None)
    own = _claim(config).exported
    assert own is not None and own.schedule_id != before.schedule_id
    found = _attributes(config)
    assert found == own.remarks
    assert found[own.schedule_id] == "exported, chosen on held-out noise"
    assert found[own.first_id] == (
        f"ranked first by the search's noise; the exported one is trial {own.trial}"
    )
    storage = optuna.storages.RDBStorage(
        config.storage.url, engine_kwargs=connect_arguments(config.storage.url)
    )
    try:
        study = optuna.load_study(study_name="t", storage=storage)
        best = min(study.best_trials, key=lambda trial: trial.values[0])
        assert (best.number, best.user_attrs["schedule_id"]) == (own.first_trial, own.first_id)
        assert study.trials[own.trial or 0].user_attrs["schedule_id"] == own.schedule_id
    finally:
        storage.remove_session()
        storage.engine.dispose()


def test_a_trial_that_is_first_and_exported_says_so_in_one_word() -> None:
    own = ExportedTrial(
        nfe=5,
        schedule_id="a" * 32,
        name="polish 1",
        trial=None,
        rank=1,
        first_id="a" * 32,
        first_trial=None,
    )
    assert own.remarks == {"a" * 32: "exported"}
    assert own.says == (
        "exported is schedule aaaaaaaa (polish 1), first on the search's own noise too"
    )


# -- numbers -----------------------------------------------------------------------------------


def _scored(name: str, value: float, spread: float = 0.002, n_images: int = 10_000) -> Scored:
    replicates = tuple(float(value + e) for e in np.linspace(-spread, spread, 41))
    held_out = HeldOut(
        extractor="a",
        reference_digest="r",
        value=value,
        standard_error=spread,
        replicates=replicates,
    )
    return Scored(
        schedule_id=name,
        origin=Origin.of_text("baseline: UniPC" if name == "published" else "polish"),
        nfe=5,
        search_value=1.0,
        held_out=held_out,
        second=None,
        n_images=n_images,
        noise_seed=1,
        search_n_images=10,
        block_value=None,
    )


def _real(*values: float) -> list[dict[str, Any]]:
    return [{"extractor": "a", "values": list(values)}]


@pytest.mark.parametrize(("n_images", "ratio"), [(10_000, 2.05), (2_000, 1.22)])
def test_the_ratio_less_the_bias_does_not_depend_on_the_number_of_images(
    n_images: int, ratio: float
) -> None:
    """A bias of c / n in both makes of one pair of schedules "2.05 times" and "1.22 times"."""
    found, published = 0.0116, 0.0610
    bias = (published - ratio * found) / (ratio - 1.0)
    rows = [
        _scored(name, value + bias, n_images=n_images, spread=1e-4)
        for name, value in (("found", found), ("published", published))
    ]
    claim = claim_of(rows, ALL, _real(bias, bias))
    against = claim.against_published
    assert against is not None
    assert against["ratio"] == pytest.approx(ratio)
    assert against["less_real_images"]["ratio"] == pytest.approx(published / found)
    said = next(sentence for sentence in claim.says if sentence.startswith("less what real"))
    assert f"less what real images have at {n_images:,} images ({bias:.4f})" in said
    assert f"published / found {published / found:.2f} (95 % " in said
    assert f"with this bias in both, published / found {ratio:.2f} (95 % " in said


def test_the_draws_of_real_images_widen_the_interval_of_the_ratio() -> None:
    rows = [_scored("found", 0.05), _scored("published", 0.10)]
    sure, unsure = (
        claim_of(rows, ALL, _real(*values)).against_published
        for values in ((0.03, 0.03, 0.03), (0.028, 0.030, 0.032))
    )
    assert sure is not None and unsure is not None
    low, high = sure["less_real_images"]["ratio_95"]
    wide = unsure["less_real_images"]["ratio_95"]
    assert wide[0] < low < 3.5 < high < wide[1]
    assert wide[0] == pytest.approx((0.1019 - 0.025) / (0.0519 - 0.025), rel=0.01)


def test_a_found_schedule_that_may_be_at_the_real_images_has_no_ratio() -> None:
    claim = claim_of([_scored("found", 0.031), _scored("published", 0.1)], ALL, _real(0.03, 0.03))
    assert claim.verdict is Verdict.BEATS
    assert any("as what is left of the found schedule's may be 0" in each for each in claim.says)


def test_a_reference_of_statistics_alone_leaves_the_bias_unknown() -> None:
    claim = claim_of([_scored("found", 0.05), _scored("published", 0.1)], ALL)
    assert (
        "the bias of distances at 10,000 images is unknown here; published / found 2.00 "
        "(95 % 1.96 to 2.04) holds at so many images only"
    ) in claim.says


def test_the_nearest_published_one_counts_also_where_another_is_exported() -> None:
    """As where the study's target cannot express the nearest one, and the exported comes first."""
    rows = [_scored("published", 0.20), _scored("found", 0.15), _scored("published", 0.10)]
    claim = claim_of(rows, ALL, _real(0.03))
    assert claim.verdict is Verdict.LOSES
    against = claim.against_published
    assert against is not None and against["ratio"] == pytest.approx(0.10 / 0.15)


def test_without_anything_to_compare_with_nothing_is_claimed() -> None:
    alone = claim_of([_scored("found", 0.05)], ALL)
    assert (alone.verdict, alone.against_published) == (Verdict.NOT_COVERED, None)
    assert "there is nothing to compare with" in alone.says[0]
    nothing = claim_of([_scored("published", 0.05)], ALL)
    assert nothing.says == (
        "no schedule that the search found is validated; the best published is UniPC, the best "
        "of 31 published configurations measured (86 known)",
    )


def test_no_difference_has_no_sign() -> None:
    rows = [_scored("found", 0.5), _scored("published", 0.5)]
    for each in rows:
        assert each.held_out.replicates is not None
    maximized = [
        replace(row, held_out=replace(row.held_out, kind="score", direction=Direction.MAXIMIZE))
        for row in rows
    ]
    said = claim_of(maximized, ALL).says[0]
    assert "found less published +0.0000 (95 % 0.0000 to 0.0000)" in said


def test_without_replicates_nothing_is_decided() -> None:
    rows = [
        replace(row, held_out=replace(row.held_out, replicates=None))
        for row in (_scored("found", 0.05), _scored("published", 0.5))
    ]
    assert claim_of(rows, ALL, _real(0.03)).verdict is Verdict.UNDECIDED


@pytest.mark.parametrize(("known", "least"), [(0, 0), (1, 1), (19, 19), (86, 26), (364, 28)])
def test_so_many_must_be_measured(known: int, least: int) -> None:
    assert least_measured(known) == least


def test_one_of_the_best_tenth_is_among_them_19_times_in_20() -> None:
    rng = np.random.default_rng(0)
    for known in (40, 86, 364):
        drawn = [rng.permutation(known)[: least_measured(known)].min() for _ in range(4000)]
        assert np.mean(np.array(drawn) < known // 10) > 0.94


def test_the_found_distance_of_these_studies_is_what_they_say(config: StudyConfig) -> None:
    settle(config, {}, others=0.7)
    claim = _claim(config)
    assert claim.found is not None and claim.found.value == FOUND
