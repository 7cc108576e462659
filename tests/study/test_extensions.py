"""A study that goes on at further numbers of calls, or in a wider space."""

from dataclasses import replace
from pathlib import Path

import pytest

from s3search.errors import InvalidConfig, StudyConflict
from s3search.run import launching
from s3search.run.launching import launch, space_of
from s3search.schedules.schedule import Schedule
from s3search.search.space import SpaceConfig, load_space
from s3search.search.trial import OriginKind
from s3search.study.database.store import open_study
from s3search.study.database.upkeep import copy_studies
from s3search.study.extensions import Extension, extension_of, newest
from s3search.study.file.config import StudyConfig
from s3search.study.results.export import best_schedule
from tests.support.studies import content, study_config

_MORE = "search.evaluations=40"
_SMALL = ("space.orders=[1,2]", "space.solvers=['taylor']", "search.baselines=false")


class _Killed(BaseException):
    pass


def _run(config: StudyConfig, *, stop_after: int | None = None) -> None:
    n = 0

    def report(_: object) -> None:
        nonlocal n
        n += 1
        if n == stop_after:
            raise _Killed

    launch(config, report)


def _space(config: StudyConfig) -> SpaceConfig:
    """As a launch settles it."""
    return space_of(config).model_copy(update={"target": "any"})


def _planned(config: StudyConfig) -> Extension:
    found = extension_of(config, _space(config))
    assert found is not None
    return found


@pytest.fixture(params=["evolution", "s3"])
def algorithm(request: pytest.FixtureRequest) -> str:
    return f"search.algorithm={request.param}"


def test_another_number_of_calls_starts_from_its_neighbours(
    tmp_path: Path, algorithm: str
) -> None:
    _run(study_config(tmp_path, algorithm, *_SMALL))
    before = content(study_config(tmp_path, algorithm))
    config = study_config(tmp_path, algorithm, *_SMALL, "space.nfe=[3,4]", _MORE)
    extension = _planned(config)
    assert (extension.version, extension.nfe, extension.is_new) == (2, (4,), True)
    assert extension.warm
    assert {each.nfe for each in extension.warm} == {4}
    _run(config)
    after = content(config)
    assert after["proposals"][: len(before["proposals"])] == before["proposals"]
    assert after["state"] == "done"
    with open_study(config.storage.url, "t") as store:
        origins = [trial.origin.text for trial in store.trials()[extension.first_number :]]
        assert any(origin.startswith("seed: space 1, NFE 4") for origin in origins)
        assert store.config.space.nfe == (3, 4)
        found = {nfe: best_schedule(store, nfe)[0] for nfe in (3, 4)}
        values = {
            row["schedule_id"]: row["value"] for row in store.rows() if row["rung"] == "validation"
        }
    assert {nfe: each.nfe for nfe, each in found.items()} == {3: 3, 4: 4}
    assert values[found[4].id] <= values[found[3].id]  # the winner with fewer calls stands by


def test_a_wider_space_keeps_what_was_measured_and_spends_the_rest(
    tmp_path: Path, algorithm: str
) -> None:
    config = study_config(tmp_path, algorithm, *_SMALL)
    _run(config)
    before = content(config)
    wide = study_config(
        tmp_path, algorithm, "search.baselines=false", "space.solvers=['taylor','deis']", _MORE
    )
    extension = _planned(wide)
    assert extension.nfe == (3,)
    assert 6 <= extension.spent < 20  # s3 goes over so small a budget
    _run(wide)
    after = content(wide)
    of_search = [row for row in after["evaluations"] if row[0] in ("search", "race")]
    assert len({row[1] for row in of_search}) == len(of_search)  # nothing measured twice
    earlier = [row for row in before["evaluations"] if row[0] in ("search", "race")]
    assert set(earlier) < set(of_search)
    with open_study(wide.storage.url, "t") as store:
        assert store.space["solvers"] == ["taylor", "deis"]
        assert newest(store) is not None
        if algorithm.endswith("evolution"):
            own = [t for t in store.trials() if t.origin.kind is OriginKind.SEARCH]
            assert len(own) == 40
    assert extension_of(wide, _space(wide)) is not None  # the same again: it is resumed
    _run(wide)
    assert content(wide) == after


@pytest.mark.parametrize("stop_after", [3, 12])
def test_a_killed_extension_goes_on_as_if_nothing_had_happened(
    tmp_path: Path, algorithm: str, stop_after: int
) -> None:
    found = []
    for name, stop in (("quiet", None), ("killed", stop_after)):
        (tmp_path / name).mkdir()
        _run(study_config(tmp_path / name, algorithm, *_SMALL))
        config = study_config(tmp_path / name, algorithm, *_SMALL, "space.nfe=[3,5]", _MORE)
        if stop is not None:
            with pytest.raises(_Killed):
                _run(config, stop_after=stop)
        _run(config)
        found.append(content(config))
    assert found[0] == found[1]


def test_what_was_under_way_is_measured_in_the_wider_space(tmp_path: Path) -> None:
    with pytest.raises(_Killed):
        _run(study_config(tmp_path, *_SMALL), stop_after=3)
    config = study_config(tmp_path, *_SMALL, "space.nfe=[3,4]", _MORE)
    extension = _planned(config)
    assert extension.nfe == (3, 4)  # the search at 3 was not done
    origins = [each.origin.text for each in extension.warm]
    unfinished = [origin for origin in origins if origin.startswith("seed: unfinished")]
    assert unfinished
    _run(config)
    with open_study(config.storage.url, "t") as store:
        assert store.n_pending() == 0


def test_an_extension_without_budget_says_how_much_to_ask_for(tmp_path: Path) -> None:
    _run(study_config(tmp_path, *_SMALL))
    config = study_config(tmp_path, *_SMALL, "space.nfe=[3,4]")
    before = content(study_config(tmp_path, *_SMALL))
    with pytest.raises(InvalidConfig, match=r"spent 6 of 6.*NFE 4.*search\.evaluations=12"):
        _run(config)
    assert content(study_config(tmp_path, *_SMALL)) == before


@pytest.mark.parametrize(
    "change",
    ["space.orders=[1]", "space.nfe=[4]", "space.end_sigma=[0.002,0.05]", "space.min_gap=0.1"],
)
def test_a_space_that_is_not_wider_is_refused(tmp_path: Path, change: str) -> None:
    _run(study_config(tmp_path, *_SMALL))
    with pytest.raises(StudyConflict, match=r"only budgets.*and the space grow"):
        _run(study_config(tmp_path, *_SMALL, change, _MORE))


def test_a_copy_has_the_versions(tmp_path: Path) -> None:
    _run(study_config(tmp_path, *_SMALL))
    config = study_config(tmp_path, *_SMALL, "space.nfe=[3,4]", _MORE)
    _run(config)
    target = f"sqlite:///{tmp_path}/copy.db"
    copy_studies(config.storage.url, target, [], lambda _: None)
    with open_study(config.storage.url, "t") as store, open_study(target, "t") as copy:
        copied, own = newest(copy), newest(store)
        assert copied is not None and own is not None
        assert replace(copied, warm=()) == replace(own, warm=())
        warm, expected = (
            [(each.origin, each.schedule) for each in extension.warm]
            for extension in (copied, own)
        )
        assert warm == expected
        assert warm
        assert all(isinstance(schedule, Schedule) for _, schedule in warm)


@pytest.mark.parametrize(
    ("noise", "is_wider"),
    [
        ("{eta=[0,1]}", True),
        ("{eta=[0.0,0.5],gamma=[0,1]}", True),
        ("{eta=[0.0,0.5],s_noise=[0.9,1.1]}", True),
        ("{eta=[0.0,0.5],s_noise=[1.01,1.1]}", False),  # 1, which it was, is no choice any more
        ("{gamma=[0,1]}", False),
    ],
)
def test_noise_in_the_space_may_be_added_and_grow(
    tmp_path: Path, noise: str, is_wider: bool
) -> None:
    small = ("search.algorithm=random", "search.evaluations=4", "search.baselines=false")
    _run(study_config(tmp_path, *small, "space.noise={eta=[0.0,0.5]}"))
    config = study_config(tmp_path, *small[::2], "space.noise=" + noise, _MORE)
    assert (extension_of(config, _space(config)) is not None) is is_wider


def test_a_study_of_before_noise_may_go_on_with_it(tmp_path: Path) -> None:
    small = ("search.algorithm=random", "search.evaluations=4", "search.baselines=false")
    _run(study_config(tmp_path, *small))
    with open_study(study_config(tmp_path).storage.url, "t") as store:
        assert "noise" not in store.space
        assert "noise" not in store.space["mutation"]
    same = study_config(tmp_path, *small)
    assert extension_of(same, _space(same)) is None
    config = study_config(tmp_path, *small[::2], "space.noise={eta=[0,1]}", _MORE)
    assert _planned(config).nfe == (3,)


def test_a_study_begun_before_its_preset_had_noise_goes_on_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = ("space.preset=full", "search.algorithm=random", "search.baselines=false")
    config = study_config(tmp_path, *small, "search.evaluations=6")
    without = load_space("full", {"nfe": [3], "noise": {}})
    with monkeypatch.context() as patch:
        patch.setattr(launching, "space_of", lambda _: without)
        _run(config)
    before = content(config)
    _run(config)  # and nothing is planned anew
    assert content(config) == before
    with open_study(config.storage.url, "t") as store:
        assert "noise" not in store.space
        assert newest(store) is None
    asked = study_config(tmp_path, *small, "space.noise={eta=[0,1]}", _MORE)
    _run(asked)
    with open_study(config.storage.url, "t") as store:
        assert store.space["noise"]["eta"] == [0.0, 1.0]
