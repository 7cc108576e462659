"""What `compare`, `best` and `export` say of a validated study, checked against the images."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from s3search.errors import StudyConflict
from s3search.evaluation.evaluator import Evaluator
from s3search.metrics.frechet import FeatureStatistics, FrechetReference
from s3search.metrics.intervals import replicates
from s3search.run.launching import launch
from s3search.search.trial import Origin
from s3search.study.database.store import StudyStore, open_study
from s3search.study.file.config import StudyConfig
from s3search.study.results.claims import claim_of
from s3search.study.results.comparison import comparison_of
from s3search.study.results.coverage import Coverage
from s3search.study.results.export import best_schedule
from s3search.study.results.frame import HeldOut, Scored, evaluations_frame, status_of, validated
from tests.support import plugins
from tests.support.studies import content, searched_study, study_config

WITNESS = "validation.metric.features=tests.support.plugins:squares"


def _launched(folder: Path, *overrides: str) -> StudyConfig:
    config = study_config(folder, *overrides)
    launch(config, lambda _: None)
    return config


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> StudyConfig:
    """A finished study with a second extractor."""
    return _launched(tmp_path_factory.mktemp("study"), WITNESS, "validation.n_images=200")


@pytest.fixture
def store(config: StudyConfig) -> Iterator[StudyStore]:
    with open_study(config.storage.url, "t") as opened:
        yield opened


def test_every_row_stands_against_the_winner_with_paired_intervals(
    config: StudyConfig, store: StudyStore
) -> None:
    """Made again from the images of every schedule, in both extractors."""
    rows = comparison_of(store)["rows"]
    assert len(rows) > 3
    assert [row["is_winner"] for row in rows].count(True) == 1
    (winner,) = (row for row in rows if row["is_winner"])
    evaluator = Evaluator(config.evaluator_spec)
    real = plugins.images().flatten(1).double().numpy()

    def measured(row: dict[str, Any], power: int) -> tuple[float, np.ndarray]:
        images = evaluator.images(store.schedule(row["schedule_id"]), 200, 1)
        features = (images.flatten(1) ** power).double().numpy()
        reference = FrechetReference.of(FeatureStatistics.of(real**power))
        found = replicates(reference, features)
        assert found is not None
        return reference.distance(FeatureStatistics.of(features)), found

    for power in (1, 2):
        of_winner, own = measured(winner, power)
        for row in rows:
            said = row if power == 1 else row["witness"]
            value, found = measured(row, power)
            assert said["value"] == pytest.approx(value, rel=1e-4)
            expected = {
                "interval_95": np.percentile(found, [2.5, 97.5]),
                "difference_95": np.percentile(found - own, [2.5, 97.5]),
                "difference": value - of_winner,
                "ratio": value / of_winner,
            }
            if own.min() > 0.0:
                expected["ratio_95"] = np.percentile(found / own, [2.5, 97.5])
            for key, number in expected.items():
                assert said[key] == pytest.approx(number, rel=1e-3, abs=1e-5), key


def test_the_second_extractor_has_rows_of_its_own_and_chooses_nothing(
    store: StudyStore, tmp_path: Path
) -> None:
    alone = content(searched_study(tmp_path, "validation.n_images=200"))
    both = content(store.config)
    rungs = Counter(row[0] for row in both["evaluations"])
    assert rungs["witness"] == rungs["validation"] > 0
    assert [row for row in both["evaluations"] if row[0] != "witness"] == alone["evaluations"]
    assert both["best"] == alone["best"]
    assert {row["extractor"] for row in store.rows() if row["rung"] == "witness"} == {"squares-2"}
    status = status_of(store)
    ledger = status["ledger"]
    assert (ledger["witness"]["network_calls"], ledger["floor"]["count"]) == (0, 1)
    measured = [row for row in both["evaluations"] if row[0] != "witness"]
    assert status["images"] == sum(row[2] for row in measured)


def test_an_export_carries_found_against_published_and_the_floor(store: StudyStore) -> None:
    found = comparison_of(store)
    (against,) = found["against_published"]
    schedule, _ = best_schedule(store)
    provenance = schedule.provenance
    assert {"nfe": 3, **provenance["against_published"]} == against
    rows = {row["name"]: row for row in found["rows"]}
    own = next(row for row in found["rows"] if not row["is_baseline"])
    assert against["found"] == own["schedule_id"]
    best_published = rows[against["published"]]
    for said, mine, other in (
        (against, own, best_published),
        (against["witness"], own["witness"], best_published["witness"]),
    ):
        assert said["ratio"] == pytest.approx(other["value"] / mine["value"])
        assert said["difference"] == pytest.approx(other["value"] - mine["value"])
        assert said["extractor"] == mine["extractor"]
        low, high = said["difference_95"]
        verdict = "beats" if low > 0 else "loses" if high < 0 else "undecided"
        is_covered = said is not against  # no launch has noted what there is
        expected = verdict if is_covered or verdict != "beats" else "not covered"
        assert said["verdict"] == expected
    assert provenance["floor"] == found["floor"]
    named = [(floor["extractor"], floor["reference_digest"]) for floor in found["floor"]]
    assert named == [
        (each["extractor"], each["reference_digest"]) for each in (own, own["witness"])
    ]
    assert [floor["n_images"] for floor in found["floor"]] == [200, 200]


def test_rows_of_before_replicates_keep_their_normal_interval(tmp_path: Path) -> None:
    config = searched_study(tmp_path)
    engine = sa.create_engine(config.storage.url)
    with engine.begin() as connection:
        connection.execute(sa.text("update s3search_evaluations set replicates = null"))
        connection.execute(sa.text("delete from s3search_jobs"))
    engine.dispose()
    with open_study(config.storage.url, "t") as store:
        found = comparison_of(store)
        scored = {row.schedule_id: row for row in validated(evaluations_frame(store), config)}
    assert found["floor"] == []
    assert [against["verdict"] for against in found["against_published"]] == ["undecided"]
    for row in found["rows"]:
        half = 1.96 * (scored[row["schedule_id"]].standard_error or 0.0)
        assert row["interval_95"] == (row["value"] - half, row["value"] + half)
        assert row["difference_95"] is row["ratio_95"] is row["witness"] is None


def test_a_second_extractor_may_come_later_but_not_change(tmp_path: Path) -> None:
    before = content(searched_study(tmp_path))
    config = _launched(tmp_path, WITNESS)
    found = content(config)
    assert [row for row in found["evaluations"] if row[0] != "witness"] == before["evaluations"]
    rungs = Counter(row[0] for row in found["evaluations"])
    assert rungs["witness"] == rungs["validation"]
    with open_study(config.storage.url, "t") as store:
        assert [floor["extractor"] for floor in comparison_of(store)["floor"]] == [
            "tests.support.plugins:pixels",
            "squares-2",
        ]
    launch(config, lambda _: None)
    assert content(config) == found
    with pytest.raises(StudyConflict, match=r"second extractor squares-2 .*have squares-3"):
        _launched(tmp_path, WITNESS, "validation.metric.power=3")


def _scored(name: str, first: list[float], second: list[float]) -> Scored:
    held_out, witness = (
        HeldOut(
            extractor=extractor,
            reference_digest="r",
            value=float(np.mean(values)),
            standard_error=0.1,
            replicates=tuple(values),
        )
        for extractor, values in (("a", first), ("b", second))
    )
    return Scored(
        schedule_id=name,
        origin=Origin.of_text(f"baseline: {name}" if name == "published" else name),
        nfe=5,
        search_value=1.0,
        held_out=held_out,
        second=witness,
        n_images=100,
        noise_seed=1,
        search_n_images=10,
        block_value=None,
    )


@pytest.mark.parametrize(
    ("second", "verdict", "agrees"),
    [
        ([2.0, 2.2, 2.1], "beats", True),
        ([0.5, 0.7, 0.6], "loses", False),
        ([0.5, 2.0, 1.0], "undecided", None),
    ],
)
def test_the_second_extractor_agrees_contradicts_or_cannot_tell(
    second: list[float], verdict: str, agrees: bool | None
) -> None:
    found = _scored("found", [1.0, 1.1, 1.2], [1.0, 1.0, 1.0])
    published = _scored("published", [2.0, 2.1, 2.2], second)
    coverage = Coverage(measured=1, known=1, without={})
    said = claim_of([found, published], coverage).against_published
    assert said is not None
    assert (said["verdict"], said["difference_95"]) == ("beats", pytest.approx((1.0, 1.0)))
    assert (said["witness"]["verdict"], said["witness"]["agrees"]) == (verdict, agrees)
    assert claim_of([found], coverage).against_published is None
