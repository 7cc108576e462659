"""A study's page follows it: from before the first result to the last, in parts."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote
from wsgiref.types import WSGIApplication

import pytest

from s3search.show.dashboard import Access, application
from s3search.show.dashboard.live import PARTS
from s3search.show.dashboard.views import Kept
from s3search.study.file.config import StudyConfig
from tests.show.dashboard.client import ask
from tests.show.dashboard.rewinding import Rewound, rewound
from tests.show.report.test_report import Page
from tests.support.studies import EVIL_NAME as NAME

HERE = quote(NAME, safe="")


@pytest.fixture
def study(finished: StudyConfig, tmp_path: Path) -> Iterator[Rewound]:
    with rewound(finished, tmp_path) as found:
        yield found


@pytest.fixture
def served(study: Rewound, monkeypatch: pytest.MonkeyPatch) -> Iterator[WSGIApplication]:
    monkeypatch.setattr("s3search.show.dashboard.views.PATIENCE", 0.0)
    with application(study.url, Access()) as shown:
        yield shown


def test_the_page_follows_a_study_from_before_its_first_result(
    study: Rewound, served: WSGIApplication
) -> None:
    first = ask(served, f"/studies/{HERE}")
    assert first.status == 200 and "The first result is not there yet" in first.text
    assert "<script>alert" not in first.text
    study.goes_on(4)
    page = Page(ask(served, f"/studies/{HERE}").text)
    assert "Trying published samplers" in page.text and "best so far" in page.text
    assert all(each["aria-label"] for each in page.all("svg")) and page.all("polyline")
    known = ",".join(str(each["data-digest"]) for each in page.all("div") if "data-digest" in each)
    now = ask(served, f"/live/{HERE}?known={known}").json
    assert set(now["parts"]) <= {"head"} and not now["is_over"]  # only time went by
    study.goes_on(1)
    assert set(ask(served, f"/live/{HERE}?known={known}").json["parts"]) == set(PARTS)
    study.ends()
    assert ask(served, f"/live/{HERE}").json["is_over"]
    assert f"{NAME}: s3search report" in Page(ask(served, f"/studies/{HERE}").text).text


def test_the_parts_run_nothing_and_stand_behind_the_guard(
    study: Rewound, served: WSGIApplication
) -> None:
    study.goes_on(30)
    parts = ask(served, f"/live/{HERE}").json["parts"]
    assert not [
        (tag, attributes)
        for part in parts.values()
        for tag, attributes in Page(part["html"]).elements
        if tag == "script" or any(name.startswith("on") for name in attributes)
    ]
    policy = ask(served, f"/studies/{HERE}").headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe-inline' 'sha" not in policy
    assert "connect-src 'self'" in policy and "script-src 'sha256-" in policy
    assert ask(served, f"/live/{HERE}", host="evil.example").status == 403
    assert ask(served, "/live/nosuch").status == 404


def test_what_is_dear_to_compute_is_not_computed_at_every_look(study: Rewound) -> None:
    kept, computed = Kept(study.url), []
    study.goes_on(1)
    for _ in range(2):
        kept.of("live", NAME, lambda *_: computed.append(1), patience=1e9)
        study.goes_on(1)
    assert len(computed) == 1
    kept.of("ranking", NAME, lambda *_: computed.append(1))
    study.goes_on(1)
    kept.of("ranking", NAME, lambda *_: computed.append(1))
    assert len(computed) == 3
