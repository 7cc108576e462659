"""What a study shows in Optuna dashboard is what `compare` and `status` say of it."""

import base64
import io
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from wsgiref.types import WSGIApplication

import pytest
from PIL import Image

from s3search.cli import run
from s3search.cluster.asking import Pool
from s3search.cluster.pool import InlinePool
from s3search.errors import InvalidConfig, StudyConflict
from s3search.evaluation.evaluator import Evaluator
from s3search.processes import edm
from s3search.run.launching import launch
from s3search.schedules import published
from s3search.schedules.schedule import Schedule
from s3search.show.dashboard import Access, application
from s3search.show.dashboard.artifacts import artifacts_folder, samples_of
from s3search.show.dashboard.choices import choices_of, counted
from s3search.show.dashboard.note import merged, note_text, plain
from s3search.show.dashboard.publish import SAMPLES, publish, publish_launched, samples_meanwhile
from s3search.show.dashboard.views import ranking
from s3search.show.report.data import Collected, collect
from s3search.show.report.samples import image_grid
from s3search.study.database.store import StudyStore, create_or_resume, open_study
from s3search.study.file.config import StudyConfig
from s3search.study.results.comparison import comparison_of
from s3search.study.results.frame import evaluations_frame, status_of, validated
from tests.show.dashboard.client import ask
from tests.support.studies import EVIL_NAME as NAME
from tests.support.studies import FEWER, content, study_config, study_file, undisturbed


@pytest.fixture(scope="module")
def url(finished: StudyConfig, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A copy of the finished study, published twice."""
    file = tmp_path_factory.mktemp("published") / "study.db"
    shutil.copy(finished.storage.url.removeprefix("sqlite:///"), file)
    url = f"sqlite:///{file}"
    first = publish(url, NAME)
    assert publish(url, NAME) == first
    return url


def _no_workers() -> Pool:
    def fail() -> Any:
        raise InvalidConfig("no such model")

    return InlinePool(fail)


@pytest.fixture(scope="module")
def served(url: str) -> Iterator[WSGIApplication]:
    with application(url, Access()) as shown:
        yield shown


@pytest.fixture(scope="module")
def page(served: WSGIApplication) -> dict[str, Any]:
    """What Optuna dashboard tells its script of the study."""
    found: dict[str, Any] = ask(served, "/api/studies/1").json
    return found


@pytest.fixture(scope="module")
def cards(page: dict[str, Any]) -> dict[str, Any]:
    return {each["id"]: json.loads(each["graph_object"]) for each in page["plotly_graph_objects"]}


@pytest.fixture(scope="module")
def store(url: str) -> Iterator[StudyStore]:
    with open_study(url, NAME) as opened:
        yield opened


@pytest.fixture(scope="module")
def collected(store: StudyStore) -> Collected:
    return collect(store)


def test_every_card_is_there_once(cards: dict[str, Any], collected: Collected) -> None:
    expected = {"s3search-cost", "s3search-front"}
    for nfe in (2, 3):
        kinds = ("progress", "times", "compared", "choices")
        expected |= {f"s3search-{kind}-nfe{nfe}" for kind in kinds}
        expected |= {f"s3search-proxy-{proxy}-nfe{nfe}" for proxy in ("gaussian", "mixture")}
        if any(each.nfe == nfe and each.ranks for each in collected.calibration):
            expected.add(f"s3search-predictor-nfe{nfe}")
    assert set(cards) == expected
    for card in cards.values():
        assert card["data"] and card["layout"]["title"]["text"]
        assert "layout" not in card["layout"]["template"]  # plotly's own is 7 kB in every card


def test_best_so_far_ends_at_the_best_and_the_whole_cost(
    cards: dict[str, Any], store: StudyStore
) -> None:
    best = status_of(store)["best"]
    for nfe in (2, 3):
        found, *lines = cards[f"s3search-progress-nfe{nfe}"]["data"]
        assert found["y"] == sorted(found["y"], reverse=True)
        assert found["y"][-1] == pytest.approx(best[str(nfe)]["search"], rel=1e-5)
        assert found["x"] == sorted(found["x"])
        assert lines[0]["y"] == pytest.approx([best[str(nfe)]["search_baseline"]] * 2, rel=1e-5)
        assert lines[0]["x"] == [0, found["x"][-1]]


def test_the_comparison_is_that_of_compare(cards: dict[str, Any], store: StudyStore) -> None:
    rows = comparison_of(store)["rows"]
    for nfe in (2, 3):
        found, published_ = cards[f"s3search-compared-nfe{nfe}"]["data"]
        (own,) = [row for row in rows if row["nfe"] == nfe and not row["is_baseline"]]
        assert found["x"] == pytest.approx([own["value"]], rel=1e-5)
        low, high = own["interval_95"]
        assert found["x"][0] + found["error_x"]["array"][0] == pytest.approx(high, rel=1e-4)
        assert found["x"][0] - found["error_x"]["arrayminus"][0] == pytest.approx(low, abs=1e-4)
        names = {row["name"] for row in rows if row["nfe"] == nfe and row["is_baseline"]}
        assert set(published_["y"]) <= names


def test_the_ledger_is_that_of_status(cards: dict[str, Any], store: StudyStore) -> None:
    ledger = status_of(store)["ledger"]
    calls, seconds = cards["s3search-cost"]["data"]
    total = sum(each["network_calls"] for each in ledger.values())
    for name, share, text in zip(calls["y"], calls["x"], calls["text"], strict=True):
        assert share == pytest.approx(100 * ledger[name]["network_calls"] / total, rel=1e-5)
        assert text == f"{ledger[name]['network_calls']:,}"
    assert sum(seconds["x"]) == pytest.approx(100, abs=1e-3)


def test_a_proxy_is_drawn_against_what_was_measured(
    cards: dict[str, Any], store: StudyStore
) -> None:
    frame = evaluations_frame(store)
    last = frame[frame["rung"] == "finals"]["id"].max()  # what follows is the validation's
    is_whole = (frame["rung"] == "search") & (frame["state"] == "complete")
    whole = frame[is_whole & (frame["id"] < last)]
    for nfe in (2, 3):
        measured = whole[whole["nfe"] == nfe]["value"]
        for proxy in ("gaussian", "mixture"):
            (marks,) = cards[f"s3search-proxy-{proxy}-nfe{nfe}"]["data"]
            assert len(marks["x"]) == len(marks["y"]) > 1
            if proxy == "gaussian":  # the mixture scores as many as its seconds pay for
                assert len(marks["y"]) == len(measured)
            for drawn in marks["y"]:
                assert min(abs(drawn / measured - 1.0)) < 1e-3


def test_choices_are_counted_by_step() -> None:
    two = [
        published.dpmpp_2m(edm(), nfe=3, spacing="karras"),
        published.unipc(edm(), nfe=3, spacing="karras", order=2),
    ]
    found = counted(two, nfe=3, n_measured=40)
    n_steps = max(each.n_steps for each in two)
    assert all(len(row) == n_steps for row in found.shares)
    by_name = dict(zip(found.names, found.shares, strict=True))
    for i in range(n_steps):
        made = sum(row[i] for row in by_name.values())
        assert made == pytest.approx(sum(i < each.n_steps for each in two) / 2)
    (unipc,) = [name for name in by_name if name.startswith("UniPC") and "order 2" in name]
    assert max(by_name[unipc]) == 0.5
    same = counted(two[:1] * 3, nfe=3, n_measured=9)
    assert [sum(row[i] for row in same.shares) for i in range(two[0].n_steps)] == [1.0] * n_steps
    assert {share for row in same.shares for share in row} == {0.0, 1.0}


def test_the_best_twentieth_is_five_at_least(store: StudyStore) -> None:
    frame = evaluations_frame(store)
    for nfe in (2, 3):
        of_nfe = (frame["nfe"] == nfe) & ~frame["is_baseline"] & (frame["rung"] == "search")
        found = choices_of(store, frame, nfe)
        assert found is not None
        assert found.n_measured == of_nfe.sum()
        assert found.n_schedules == min(5, found.n_measured)
    assert choices_of(store, frame, 7) is None


def test_the_note_says_what_was_found_and_escapes_names(
    page: dict[str, Any], store: StudyStore
) -> None:
    body = page["note"]["body"]
    prose, _, _ = body.partition("```")
    assert f"# {plain(NAME)}\n" in prose
    assert NAME not in prose and "<script" not in prose.replace("\\<script", "")
    for against in comparison_of(store)["against_published"]:
        between = against["ratio_95"]
        tail = "" if between is None else f"({between[0]:.2f} to {between[1]:.2f})"
        assert f"| {against['ratio']:.2f} {tail} |" in prose
    for claim in comparison_of(store)["claims"]:
        for sentence in claim["says"]:
            said = f"NFE {claim['nfe']}: {sentence}"
            assert f"- {plain(said)}\n" in prose
    status = status_of(store)
    assert f"{status['network_calls']:,} network calls" in prose
    assert "s3search export" in body and "--nfe 3 -o schedule-3.json" in body
    heads = [line for line in prose.splitlines() if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in heads[:4]}) == 1


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb", "a b"),
        ("[x](javascript:y)", r"\[x\](javascript\:y)"),
        ("<b>|`*_~$&!#", r"\<b\>\|\`\*\_\~\$\&\!\#"),
        ("www.x.org a@b.c \\", r"www\.x.org a\@b.c " + "\\\\"),
        ("UniPC-2, NFE 5", "UniPC-2, NFE 5"),
    ],
)
def test_markdown_shows_names_as_they_are(text: str, shown: str) -> None:
    assert plain(text) == shown


def test_what_people_wrote_into_the_note_is_kept(collected: Collected) -> None:
    ours = note_text(collected)
    assert merged(ours, "") == merged(ours, merged(ours, "")) == f"{ours}\n"
    with_theirs = merged(ours, "look at trial 7")
    assert with_theirs.endswith("\n\nlook at trial 7\n")
    assert merged(ours, with_theirs) == with_theirs
    older = with_theirs.replace("# ", "# older ", 1)
    assert merged(ours, older) == with_theirs


def test_a_study_that_is_not_validated_shows_nothing_yet(tmp_path: Path) -> None:
    config = study_config(tmp_path)
    create_or_resume(config, {}).close()
    with pytest.raises(StudyConflict, match="no validated schedule yet"):
        publish(config.storage.url, "t")
    publish_launched(config, _no_workers())  # and a launch that found nothing says nothing


def test_a_launch_whose_graphs_cannot_be_written_says_so_and_succeeds(
    finished: StudyConfig, tmp_path: Path
) -> None:
    nowhere = finished.storage.model_copy(update={"url": f"sqlite:///{tmp_path}/none.db"})
    config = finished.model_copy(update={"storage": nowhere})
    with pytest.warns(UserWarning, match="no database file.*s3search publish"):
        publish_launched(config, _no_workers())


def test_a_launch_whose_samples_cannot_be_made_shows_the_rest(
    finished: StudyConfig, tmp_path: Path
) -> None:
    file = tmp_path / "study.db"
    shutil.copy(finished.storage.url.removeprefix("sqlite:///"), file)
    copied = finished.storage.model_copy(update={"url": f"sqlite:///{file}"})
    config = finished.model_copy(update={"storage": copied})
    with pytest.warns(UserWarning, match="samples of its schedules: no such model"):
        publish_launched(config, _no_workers())
    with application(copied.url, Access()) as shown:
        page = ask(shown, "/api/studies/1").json
    assert page["plotly_graph_objects"] and any(t["artifacts"] for t in page["trials"])


def test_a_launch_ends_with_note_graphs_and_drawings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["s3search", "launch", str(study_file(tmp_path)), "--json"])
    assert run() == 0
    url = f"sqlite:///{tmp_path}/study.db"
    with application(url, Access()) as shown:
        page = ask(shown, "/api/studies/1").json
    assert "## Found" in page["note"]["body"]
    assert {"s3search-cost", "s3search-progress-nfe3"} <= {
        each["id"] for each in page["plotly_graph_objects"]
    }
    validated = json.loads(capsys.readouterr().out)["rows"]
    drawn = [trial for trial in page["trials"] if trial["artifacts"]]
    assert len(drawn) >= len(validated) > 0
    assert len(list((tmp_path / "study.db.artifacts").iterdir())) == 3 * len(drawn)


def test_the_samples_of_a_launch_are_of_the_same_held_out_noise(tmp_path: Path) -> None:
    config = study_config(tmp_path)
    launch(config, lambda _: None, afterwards=lambda pool: publish_launched(config, pool))
    folder = artifacts_folder(config.storage.url)
    evaluator, seed = Evaluator(config.evaluator_spec), config.validation_noise_seed
    with open_study(config.storage.url, "t") as store:
        known = validated(evaluations_frame(store), store.config)
        schedules = [store.schedule(row.schedule_id) for row in known]
    assert {row.is_baseline for row in known} == {False, True}
    for schedule in schedules:
        (kept,) = samples_of(folder, ["t"], schedule)
        made = image_grid("", evaluator.images(schedule, SAMPLES, seed))
        encoded = base64.b64decode(made.source.rpartition(",")[2])
        with Image.open(io.BytesIO(kept.content)) as shown, Image.open(io.BytesIO(encoded)) as own:
            assert 320 <= shown.width < 320 + own.width  # each pixel a square of pixels
            assert shown.resize(own.size, Image.Resampling.NEAREST).tobytes() == own.tobytes()
    publish_launched(config, _no_workers())  # launched again, nothing is left to make


def test_a_running_search_has_samples_of_its_best_and_finds_the_same(tmp_path: Path) -> None:
    """They are there before the end, and those of what is not the best any more are gone."""
    config = study_config(tmp_path, FEWER)
    folder = artifacts_folder(config.storage.url)
    assert folder is not None
    make = samples_meanwhile(config, first_after=0.0)
    seen: list[str] = []

    def meanwhile(pool: Pool, schedules: Sequence[Schedule]) -> None:
        make(pool, schedules)
        assert [len(samples_of(folder, ["t"], each)) for each in schedules] == [1]
        seen.append(schedules[0].id)

    def afterwards(pool: Pool) -> None:
        meanwhile(pool, [published.ddim(edm(), nfe=3)])
        assert len(list(folder.iterdir())) == 1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("s3search.show.dashboard.publish._PAUSE", 0)
        launch(config, lambda _: None, meanwhile=meanwhile, afterwards=afterwards)
    assert content(config) == undisturbed(tmp_path, FEWER)
    with open_study(config.storage.url, "t") as store:
        assert seen[-2] == ranking(evaluations_frame(store), 0, {})[3][0].schedule_id


def test_without_optuna_dashboard_a_search_finishes_without_cards(
    url: str, finished: StudyConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(InvalidConfig, match="pip install 'optuna-dashboard"):
        publish(url, NAME)
    publish_launched(finished, _no_workers())
    with open_study(finished.storage.url, NAME) as store:
        assert store.state == "done"
    assert artifacts_folder(finished.storage.url) not in Path(
        finished.storage.url.removeprefix("sqlite:///")
    ).parent.glob("*")
