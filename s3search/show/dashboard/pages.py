"""Our own pages beside Optuna dashboard, in the same application: studies, schedules, downloads.

    /studies                  every study at a glance
    /studies/NAME             a study's report, without samples
    /ranking/NAME?nfe=&from=  its schedules by distance, a hundred at a time
    /schedules/ID?with=ID     one schedule, or two beside each other; the first letters of an id do
    /schedules/ID.json, .png  to keep

They only read.  Every name passes through the templates' escaping, and their policy lets them run
no script but the report's own.
"""

import base64
import io
import json
import re
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import jinja2
import pandas as pd
from markupsafe import Markup

from s3search.errors import StudyConflict
from s3search.schedules.schedule import Schedule
from s3search.show.dashboard.artifacts import samples_of
from s3search.show.dashboard.views import (
    PAGE_SIZE,
    Kept,
    measurements,
    optuna_ids,
    ranking,
    schedule_of,
)
from s3search.show.pictures import schedule_figure, time_lines
from s3search.show.report.data import collect
from s3search.show.report.page import number, render, style_sheet
from s3search.show.report.samples import NoSamples
from s3search.show.report.svg import svg_of
from s3search.show.terminal.status import measured_words
from s3search.study.database.store import StudyStore, study_names
from s3search.study.results.exported import remarks_of
from s3search.study.results.frame import status_of
from s3search.study.vetoes import Veto

_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
_OF_REPORT = "frame-ancestors 'none'"  # the report's own policy stands in the page
_ID = re.compile(r"([0-9a-f]{8,32})(\.json|\.png)?")

Headers = dict[str, str]
Answer = tuple[str, Headers, bytes]


class Pages:
    """The pages of one database."""

    def __init__(self, url: str, artifacts: Path | None) -> None:
        self._url, self._artifacts = url, artifacts
        self._kept = Kept(url)
        self._drawing = threading.Lock()  # matplotlib's settings are the process's
        self._environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters |= {
            "count": lambda value: f"{value:,}",
            "measured": measured_words,
            "number": number,
        }

    def before(self, application: WSGIApplication) -> WSGIApplication:
        """These pages, and the application for all other paths."""
        own: dict[str, Callable[[str, dict[str, str]], Answer]] = {
            "studies": self._studies,
            "ranking": self._ranking,
            "schedules": self._schedules,
        }

        def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            path = str(environ.get("PATH_INFO", "")).encode("latin-1").decode("utf-8", "replace")
            first, _, rest = path.removeprefix("/").partition("/")
            if first not in own:
                return application(environ, start_response)
            query = parse_qs(str(environ.get("QUERY_STRING", "")))
            try:
                found = own[first](rest, {key: values[0] for key, values in query.items()})
            except StudyConflict as error:
                found = self._page("message", "Not here", status="404 Not Found", sentence=error)
            status, headers, body = found
            start_response(status, [*headers.items(), ("Content-Length", str(len(body)))])
            return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

        return answer

    # -- the pages -------------------------------------------------------------------------

    def _studies(self, name: str, _query: dict[str, str]) -> Answer:
        if name:
            return self._study(name)
        ids = optuna_ids(self._url)
        studies = [
            {
                "name": each,
                "address": _address("studies", each),
                "ranking": _address("ranking", each),
                "optuna": f"/dashboard/studies/{ids[each]}" if each in ids else None,
                "status": self._kept.of("status", each, status_of),
            }
            for each in study_names(self._url)
        ]
        return self._page("studies", "Studies", studies=studies)

    def _study(self, name: str) -> Answer:
        def report(store: StudyStore, frame: pd.DataFrame) -> str:
            reason = (
                "A launch puts samples on the pages of schedules, and so does "
                "`s3search publish --samples 24`."
            )
            with self._drawing:
                return render(collect(store, frame), NoSamples(reason), self._links(name))

        try:
            text = self._kept.of("report", name, report)
        except StudyConflict as error:
            if name not in study_names(self._url):
                raise
            return self._page("message", name, self._links(name), sentence=error)
        return _html(text, policy=_OF_REPORT)

    def _ranking(self, name: str, query: dict[str, str]) -> Answer:
        def ranked(store: StudyStore, frame: pd.DataFrame) -> tuple[Any, int, list[Veto]]:
            config = store.config
            by_nfe = ranking(frame, config.held_out_images, remarks_of(store, frame))
            return by_nfe, config.search.n_images, list(store.vetoes().values())

        by_nfe, n_images, vetoed = self._kept.of("ranking", name, ranked)
        if not by_nfe:
            raise StudyConflict(f"study {name!r} has no schedule measured yet")
        nfe = _whole(query.get("nfe", ""), min(by_nfe))
        if nfe not in by_nfe:
            raise StudyConflict(f"study {name!r} has no schedule with {nfe} network calls")
        rows = by_nfe[nfe]
        start = min(_whole(query.get("from", ""), 0), len(rows) - 1)
        return self._page(
            "ranking",
            f"{name}: schedules",
            self._links(name),
            rows=rows[start : start + PAGE_SIZE],
            nfe=nfe,
            known=sorted(by_nfe),
            total=len(rows),
            n_images=n_images,
            vetoed=vetoed,
            address=_address("ranking", name),
            before=max(0, start - PAGE_SIZE) if start else None,
            after=start + PAGE_SIZE if start + PAGE_SIZE < len(rows) else None,
            size=PAGE_SIZE,
        )

    def _schedules(self, name: str, query: dict[str, str]) -> Answer:
        wanted = _ID.fullmatch(name)
        if wanted is None:
            raise StudyConflict(f"{name!r} is no schedule's id (8 to 32 digits of 0-9a-f)")
        schedule = schedule_of(self._url, wanted[1])
        if wanted[2] == ".json":
            content = json.dumps(schedule.to_dict(), indent=1).encode()
            file = f'attachment; filename="schedule-{schedule.id[:8]}.json"'
            return (
                "200 OK",
                {"Content-Type": "application/json", "Content-Disposition": file},
                content,
            )
        if wanted[2] == ".png":
            headers = {"Content-Type": "image/png", "Content-Security-Policy": _POLICY}
            return "200 OK", headers, self._png(schedule)  # browsers style a picture by itself
        others = [query["with"]] if _ID.fullmatch(query.get("with", "")) else []
        schedules = [schedule, *(schedule_of(self._url, each) for each in others)]
        return self._page(
            "schedule",
            " and ".join(f"Schedule {each.id[:8]}" for each in schedules),
            shown=[self._shown(each, i) for i, each in enumerate(schedules)],
        )

    # -- their parts -----------------------------------------------------------------------

    def _shown(self, schedule: Schedule, place: int) -> dict[str, Any]:
        measured = measurements(self._url, schedule.id)
        samples = samples_of(
            self._artifacts, dict.fromkeys(row["study"] for row in measured), schedule
        )
        with self._drawing:
            drawing = svg_of(
                lambda: schedule_figure(schedule),
                f"schedule-{place}",
                f"Drawing of schedule {schedule.id[:8]}; the table below has its steps.",
            )
        return {
            "schedule": schedule,
            "drawing": Markup(drawing),
            "lines": time_lines(schedule),
            "measured": measured,
            "samples": [
                f"data:{each.mimetype};base64,{base64.b64encode(each.content).decode()}"
                for each in samples
            ],
        }

    def _png(self, schedule: Schedule) -> bytes:
        buffer = io.BytesIO()
        with self._drawing:
            schedule_figure(schedule).savefig(buffer, dpi=130, format="png")
        return buffer.getvalue()

    def _links(self, study: str) -> list[tuple[str, str]]:
        number = optuna_ids(self._url).get(study)
        links = [
            ("All studies", "/studies"),
            ("This study", _address("studies", study)),
            ("Its schedules", _address("ranking", study)),
        ]
        return [
            *links,
            *([("Optuna dashboard", f"/dashboard/studies/{number}")] if number else []),
        ]

    def _page(
        self,
        template: str,
        title: str,
        links: Sequence[tuple[str, str]] = (
            ("All studies", "/studies"),
            ("Optuna dashboard", "/dashboard"),
        ),
        *,
        status: str = "200 OK",
        **content: Any,
    ) -> Answer:
        text = self._environment.get_template(f"{template}.html.j2").render(
            title=title, links=links, style=Markup(style_sheet()), **content
        )
        return _html(text, status=status)


def _html(text: str, *, status: str = "200 OK", policy: str = _POLICY) -> Answer:
    headers = {"Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": policy}
    return status, headers, text.encode()


def _address(page: str, study: str) -> str:
    return f"/{page}/{quote(study, safe='')}"


def _whole(text: str, otherwise: int) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else otherwise
