"""A user's own search, named by its import path."""

from pathlib import Path

import pytest

from s3search.errors import InvalidConfig
from s3search.run.launching import launch
from tests.support.studies import content, study_config

BATCHES = "search.algorithm=examples.own_search:Batches"


class NoRun:
    """Not a search."""

    def __init__(self, setup: object) -> None:
        del setup


def test_a_search_of_ones_own_runs_resumes_and_is_validated(tmp_path: Path) -> None:
    for folder in ("one", "other"):
        (tmp_path / folder).mkdir()
    config = study_config(tmp_path / "one", BATCHES, "search.evaluations=24")
    launch(config, lambda _: None)
    found = content(config)
    origins = [origin for _, _, origin, _ in found["proposals"]]
    first, last = (
        [o.startswith("baseline") for o in each] for each in (origins[:9], origins[24:])
    )
    assert first == [True] * 8 + [False]
    assert last and all(last)  # of solvers that the search left out, measured for the validation
    assert "mutation" in origins
    assert found["state"] == "done"
    assert set(found["best"]) == {3}

    reports = iter(range(100))

    def interrupt(_: object) -> None:
        if next(reports) == 13:
            raise KeyboardInterrupt

    again = study_config(tmp_path / "other", BATCHES, "search.evaluations=24")
    with pytest.raises(KeyboardInterrupt):
        launch(again, interrupt)
    launch(again, lambda _: None)
    assert content(again) == found


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("examples.own_search:Batch", "has no function 'Batch'.*Batches"),
        ("no.such.module:Search", "cannot import 'no.such.module'"),
        ("tests.run.test_own_search:NoRun", "made a NoRun without `run`"),
        ("batches", "unknown algorithm 'batches'.*'package.module:Class'"),
    ],
)
def test_what_is_no_search_is_refused_before_anything_is_written(
    tmp_path: Path, path: str, message: str
) -> None:
    config = study_config(tmp_path, f"search.algorithm={path}")
    with pytest.raises(InvalidConfig, match=message):
        launch(config, lambda _: None)
    assert not Path(config.storage.url.removeprefix("sqlite:///")).exists()
