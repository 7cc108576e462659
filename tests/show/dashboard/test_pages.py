"""Our own pages say what the database says, escape every name, and find every schedule."""

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote
from wsgiref.types import WSGIApplication

import pytest

from s3search.cli import run
from s3search.run.launching import launch
from s3search.schedules.schedule import Schedule
from s3search.show.dashboard import Access, application
from s3search.show.dashboard.publish import publish
from s3search.show.dashboard.rows import ShownSchedule
from s3search.show.dashboard.views import PAGE_SIZE, Ranked, ranking
from s3search.study.database.store import open_study
from s3search.study.file.config import StudyConfig
from s3search.study.results.comparison import comparison_of
from s3search.study.results.exported import remarks_of
from s3search.study.results.frame import evaluations_frame, status_of
from tests.show.dashboard.client import Answer, ask
from tests.show.report.test_report import Page
from tests.support.studies import EVIL_NAME as NAME
from tests.support.studies import searched_study, study_config

HERE = quote(NAME, safe="")


@pytest.fixture(scope="module")
def url(finished: StudyConfig, tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("pages") / "study.db"
    shutil.copy(finished.storage.url.removeprefix("sqlite:///"), file)
    publish(f"sqlite:///{file}", NAME, n_samples=4)
    return f"sqlite:///{file}"


@pytest.fixture(scope="module")
def served(url: str) -> Iterator[WSGIApplication]:
    with application(url, Access()) as shown:
        yield shown


def _winner(url: str, nfe: int = 2) -> str:
    with open_study(url, NAME) as store:
        rows = [row for row in comparison_of(store)["rows"] if row["nfe"] == nfe]
        return next(str(row["schedule_id"]) for row in rows if row["is_winner"])


def _links(page: Answer) -> list[str]:
    return [str(each["href"]) for each in Page(page.text).all("a") if "href" in each]


def test_every_page_is_there_and_every_link_leads_somewhere(
    served: WSGIApplication, url: str
) -> None:
    """From the overview on, as far as links go, and through three of the schedules."""
    waiting, seen, drawn = ["/studies"], set(), set()
    while waiting:
        path = waiting.pop()
        if path in seen or path.startswith(("#", "data:")):
            continue
        if path.startswith("/schedules/") and not path.endswith(".json"):
            drawn.add(path[: len("/schedules/") + 8])
            if len(drawn) > 3:
                continue
        seen.add(path)
        found = ask(served, path)
        assert found.status == 200, path
        if path.startswith("/dashboard") or "html" not in found.headers["content-type"]:
            continue
        assert "<script>alert" not in found.text
        assert "[b](javascript" not in found.text or "&lt;script&gt;alert" in found.text
        assert not [a for _, a in Page(found.text).elements if any(k.startswith("on") for k in a)]
        waiting += _links(found)
    assert {path.split("/")[1] for path in seen} == {
        "studies",
        "ranking",
        "schedules",
        "dashboard",
    }
    assert {path.rpartition(".")[2] for path in seen if "." in path[-5:]} == {"json", "png"}


def test_the_overview_says_what_status_says(served: WSGIApplication, url: str) -> None:
    said = Page(ask(served, "/studies").text).text
    with open_study(url, NAME) as store:
        status = status_of(store)
    assert NAME in said
    for best in status["best"].values():
        for key in ("search", "held_out", "held_out_baseline"):
            assert f"{best[key]:.4f}" in said
    assert "100 % of the budget of 40 evaluations x 30 images; " in said
    assert f"{status['measured']} schedules measured" in said
    assert f"{status['network_calls']:,}" in said


def test_a_study_s_page_is_its_report_with_links(served: WSGIApplication, url: str) -> None:
    found = ask(served, f"/studies/{HERE}")
    page = Page(found.text)
    assert f"/ranking/{HERE}" in _links(found) and "/dashboard/studies/1" in _links(found)
    assert page.text.startswith(f"{NAME}: s3search report")
    assert found.headers["content-security-policy"] == "frame-ancestors 'none'"
    (policy,) = [each["content"] for each in page.all("meta") if "http-equiv" in each]
    assert str(policy).startswith("default-src 'none'; ")


def test_the_ranking_is_by_distance(served: WSGIApplication, url: str) -> None:
    with open_study(url, NAME) as store:
        frame = evaluations_frame(store)
        known = ranking(frame, store.config.validation.n_images, remarks_of(store, frame))
    for nfe in (2, 3):
        page = Page(ask(served, f"/ranking/{HERE}?nfe={nfe}").text)
        values = [
            float(v) for v in re.findall(r" (\d+\.\d{4}) (?:\d+\.\d{4}|-)(?: |$)", page.text)
        ]
        assert len(values) == len(known[nfe]) > 5 and values == sorted(values)
        for row in known[nfe]:
            assert not row.remark or row.remark in page.text
        (exported,) = (row for row in known[nfe] if row.remark.startswith("exported"))
        assert exported.schedule_id == _winner(url, nfe)
        assert known[nfe][0].remark
    assert ask(served, f"/ranking/{HERE}?nfe=9").status == 404
    assert ask(served, f"/ranking/{HERE}?nfe=x&from=-4").status == 200
    assert ask(served, f"/ranking/{HERE}?from=999999").status == 200


def test_a_long_ranking_is_paged(served: WSGIApplication, monkeypatch: pytest.MonkeyPatch) -> None:
    many = [
        Ranked(
            rank=i, schedule_id=f"{i:032x}", origin="m", is_baseline=False, value=i, held_out=None
        )
        for i in range(1, 2 * PAGE_SIZE + 6)
    ]
    monkeypatch.setattr(
        "s3search.show.dashboard.views.Kept.of", lambda *_, **__: ({5: many}, 1000, [])
    )
    monkeypatch.setattr(
        "s3search.show.dashboard.pages.rows_of",
        lambda _, rows, *__: (
            ShownSchedule(ranked=each, points="0,0", samples=None) for each in rows
        ),
    )
    starts = []
    path: str | None = f"/ranking/{HERE}"
    while path is not None:
        page = Page(ask(served, path).text)
        starts.append(len([each for each in page.all("th") if each.get("scope") == "row"]))
        following = [a["href"] for a in page.all("a") if a.get("rel") == "next"]
        path = following[0] if following else None
    assert starts == [PAGE_SIZE, PAGE_SIZE, 5]


def test_a_schedule_is_shown_and_downloaded(served: WSGIApplication, url: str) -> None:
    winner = _winner(url)
    shown = ask(served, f"/schedules/{winner[:8]}")
    page = Page(shown.text)
    assert len(page.all("svg")) == 1 and page.all("svg")[0]["aria-label"]
    (samples,) = page.all("img")
    assert str(samples["src"]).startswith("data:image/png;base64,") and samples["alt"]
    assert NAME in page.text and "validation" in page.text
    content = ask(served, f"/schedules/{winner}.json")
    assert Schedule.from_dict(content.json).id == winner
    assert content.headers["content-disposition"].startswith("attachment; ")
    assert ask(served, f"/schedules/{winner}.png").body.startswith(b"\x89PNG")


def test_ticked_schedules_are_compared(served: WSGIApplication, url: str) -> None:
    """As many as are ticked; what may be said of a pair is the paired interval's to say."""
    with open_study(url, NAME) as store:
        rows = [row for row in comparison_of(store)["rows"] if row["nfe"] == 2]
    first, *others = [row for row in rows if row["difference_95"] is not None or row["is_winner"]]
    others = others[:3]
    assert first["is_winner"] and others
    ids = "&".join(f"id={row['schedule_id'][:8]}" for row in (first, *others))
    found = Page(ask(served, f"/compare/{HERE}?{ids}").text)
    assert len(found.all("svg")) == 1 and found.all("svg")[0]["aria-label"]
    assert len([each for each in found.all("img") if str(each.get("src")).startswith("data:")]) > 1
    for row in others:
        low, high = row["difference_95"]
        a, b = first["schedule_id"][:8], row["schedule_id"][:8]
        said = "noise may decide" if low <= 0 <= high else f"{a if low > 0 else b} is nearer"
        assert f"{a} against {b}: {said}." in found.text
        assert f"{row['difference']:+.4f} (95 % {low:+.4f} to {high:+.4f})" in found.text
    again = [str(each["id"]) for _, each in found.elements if "id" in each]
    assert len(again) == len(set(again))
    for few in ("", f"?id={first['schedule_id']}", "?id=00000000&id=11111111"):
        refused = ask(served, f"/compare/{HERE}{few}")
        assert refused.status == 404 and "schedule" in Page(refused.text).text


def test_a_ranking_is_filtered_by_kind_and_text(served: WSGIApplication) -> None:
    def ranked(query: str) -> list[str]:
        page = Page(ask(served, f"/ranking/{HERE}?nfe=2&{query}").text)
        return [str(each["value"]) for each in page.all("input") if each.get("name") == "id"]

    everything, found, published = ranked(""), ranked("kind=found"), ranked("kind=published")
    assert found and published and sorted(found + published) == sorted(everything)
    assert ranked(f"text={everything[3]}") == [everything[3]]
    assert set(ranked("text=BASELINE")) == set(published)
    assert ranked("text=nothing+of+the+kind") == []


@pytest.mark.parametrize(
    "path",
    [
        "/studies/nosuch",
        "/ranking/nosuch",
        "/ranking",
        "/schedules",
        "/schedules/%25",
        "/schedules/0123456789abcdef",
        "/schedules/../../etc/passwd",
        "/schedules/0123",
        "/studies/<img src=x onerror=alert(1)>",
    ],
)
def test_what_is_not_there_is_a_sentence(served: WSGIApplication, path: str) -> None:
    found = ask(served, path)
    assert found.status == 404
    assert "<img" not in found.text
    assert ask(served, path, "HEAD").body == b""


def test_own_pages_stand_behind_the_guard(url: str, served: WSGIApplication) -> None:
    for path in ("/studies", f"/studies/{HERE}", "/schedules/00000000.json"):
        assert ask(served, path, host="evil.example").status == 403
        assert ask(served, path, "POST").status == 403


def test_a_page_follows_the_study(tmp_path: Path) -> None:
    config = searched_study(tmp_path, "validation.finalists=1")
    with application(config.storage.url, Access()) as shown:
        before = ask(shown, "/studies/t").text
        assert ask(shown, "/studies/t").text == before
        launch(study_config(tmp_path, "search.evaluations=9"), lambda _: None)
        assert ask(shown, "/studies/t").text != before
        with open_study(config.storage.url, "t") as store:
            store.set_state("interrupted")
        assert "interrupted" in ask(shown, "/studies").text


def test_a_study_without_validation_has_its_ranking(tmp_path: Path) -> None:
    config = searched_study(tmp_path)
    with open_study(config.storage.url, "t") as store:
        validation = config.validation.model_copy(update={"n_images": 61})
        store.set_config(config.model_copy(update={"validation": validation}), store.space)
    with application(config.storage.url, Access()) as shown:
        found = ask(shown, "/studies/t")
        assert found.status == 200 and "no validated schedule yet" in found.text
        assert "/ranking/t" in _links(found)
        assert ask(shown, "/ranking/t").status == 200


def test_publishing_from_the_command_line_says_what_it_wrote(
    url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["s3search", "publish", NAME, "--storage", url])
    assert run() == 0
    said = " ".join(capsys.readouterr().out.split())
    assert said.startswith(NAME)
    assert re.search(r"a note, \d+ graphs, \d+ artifacts in .*study.db.artifacts", said)
    monkeypatch.setattr(sys, "argv", ["s3search", "publish", "nosuch", "--storage", url])
    assert run() == 2
