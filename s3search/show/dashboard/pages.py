"""Our own pages beside Optuna dashboard, in the same application: studies, schedules, downloads.

    /studies                  every study at a glance
    /studies/NAME             a study while it runs, which follows it; then its report, with the
                              samples that its artifacts have
    /live/NAME?known=         the parts of that page whose digests are not known, as JSON
    /ranking/NAME?nfe=&from=  its schedules by their metric, a hundred at a time; &kind= and &text=
    /compare/NAME?id=&id=     schedules beside each other; the first letters of an id do
    /schedules/ID             one schedule
    /schedules/ID.json, .png  to keep

They only read.  Every name passes through the templates' escaping, and their policy lets them run
no script but our own.
"""

import json
import re
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import jinja2
import pandas as pd
from markupsafe import Markup

from s3search.errors import StudyConflict
from s3search.show.dashboard import live, views
from s3search.show.dashboard.beside import side_by_side
from s3search.show.dashboard.query import Query, address_of
from s3search.show.dashboard.rows import kept_samples, rows_of
from s3search.show.dashboard.single import picture_of, shown_of
from s3search.show.dashboard.views import (
    PAGE_SIZE,
    Kept,
    optuna_ids,
    ranking,
    schedule_of,
)
from s3search.show.report.data import collect
from s3search.show.report.page import hash_of, number, render, script, style_sheet
from s3search.show.terminal.numbers import duration
from s3search.show.terminal.status import measured_words
from s3search.study.database.store import StudyStore, open_study, study_names
from s3search.study.metric_words import MetricWords
from s3search.study.results.exported import remarks_of
from s3search.study.results.frame import evaluations_frame, status_of
from s3search.study.vetoes import Veto

_FOLDER = Path(__file__).parent / "templates"
_LIVE_SCRIPT = (_FOLDER / "live.js").read_text(encoding="utf-8")
_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'; connect-src 'self'; "
    f"script-src '{hash_of(script())}' '{hash_of(_LIVE_SCRIPT)}'"
)
_OF_REPORT = "frame-ancestors 'none'"  # the report's own policy stands in the page
_ELSEWHERE = (("All studies", "/studies"), ("Optuna dashboard", "/dashboard"))
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
            loader=jinja2.FileSystemLoader(_FOLDER),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters |= {
            "capitalized": lambda text: text[:1].upper() + text[1:],
            "count": lambda value: f"{value:,}",
            "duration": duration,
            "measured": measured_words,
            "number": number,
        }

    def before(self, application: WSGIApplication) -> WSGIApplication:
        """These pages, and the application for all other paths."""
        own: dict[str, Callable[[str, Query], Answer]] = {
            "studies": self._studies,
            "live": self._live,
            "ranking": self._ranking,
            "compare": self._compare,
            "schedules": self._schedules,
        }

        def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            path = str(environ.get("PATH_INFO", "")).encode("latin-1").decode("utf-8", "replace")
            first, _, rest = path.removeprefix("/").partition("/")
            if first not in own:
                return application(environ, start_response)
            query = Query.of(environ)
            try:
                found = own[first](rest, query)
            except StudyConflict as error:
                found = self._page("message", "Not here", status="404 Not Found", sentence=error)
            status, headers, body = found
            start_response(status, [*headers.items(), ("Content-Length", str(len(body)))])
            return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

        return answer

    # -- the pages -------------------------------------------------------------------------

    def _studies(self, name: str, _query: Query) -> Answer:
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
        words = {each["name"]: MetricWords.said_by(each["status"]) for each in studies}
        said = list(dict.fromkeys(f"{each.better_are}." for each in words.values()))
        better = " ".join(f"{each[:1].upper()}{each[1:]}" for each in said)
        return self._page("studies", "Studies", studies=studies, words=words, better=better)

    def _study(self, name: str) -> Answer:
        def report(store: StudyStore, frame: pd.DataFrame) -> str:
            collected, seed = collect(store, frame), store.config.validation_noise_seed
            samples = kept_samples(self._artifacts, name, collected.picks, seed)
            with self._drawing:
                return render(collected, samples, self._links(name))

        with open_study(self._url, name) as store:
            is_running = store.state in ("searching", "validating")
        if not is_running:
            try:
                return _html(self._kept.of("report", name, report), policy=_OF_REPORT)
            except StudyConflict as error:  # not validated
                why = str(error)
        else:
            why = ""
        return self._page(
            "live",
            name,
            self._links(name),
            names=live.PARTS,
            shown=self._parts(name, why)[1],
            live=_address("live", name),
            live_script=Markup(_LIVE_SCRIPT),
        )

    def _live(self, name: str, query: Query) -> Answer:
        known = query.first("known").split(",")
        is_over, parts = self._parts(name)
        new = {key: part for key, part in parts.items() if part["digest"] not in known}
        content = json.dumps({"is_over": is_over, "parts": new}).encode()
        headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}
        return "200 OK", headers, content

    def _parts(self, name: str, why: str = "") -> tuple[bool, dict[str, dict[str, str]]]:
        """Whether the study is over, and what its page shows until then."""

        def curves(store: StudyStore, frame: pd.DataFrame) -> list[live.Curve]:
            with self._drawing:
                return live.curves_of(store, frame, self._artifacts)

        known = self._kept.of("live", name, curves, patience=views.PATIENCE)
        with open_study(self._url, name) as store:
            head, nfes = live.head_of(store), store.config.space.nfe
        content = {
            **head,
            "nfes": nfes,
            "curves": known,
            "why": why,
            "here": _address("studies", name),
            "ranking": _address("ranking", name),
            "compare": _address("compare", name),
        }
        return head["is_over"], live.rendered(self._environment, content)

    def _compare(self, name: str, query: Query) -> Answer:
        with open_study(self._url, name) as store, self._drawing:
            ids = list(dict.fromkeys(query.get("id", [])))
            both = side_by_side(store, evaluations_frame(store), ids, self._artifacts)
        return self._page(
            "compare",
            " and ".join(side.schedule.id[:8] for side in both.sides),
            self._links(name),
            both=both,
            sampled=[side for side in both.sides if side.samples],
        )

    def _ranking(self, name: str, query: Query) -> Answer:
        def ranked(store: StudyStore, frame: pd.DataFrame) -> tuple[Any, int, list[Veto]]:
            config = store.config
            by_nfe = ranking(frame, config.held_out_images, remarks_of(store, frame))
            return by_nfe, config.search.n_images, list(store.vetoes().values())

        by_nfe, n_images, vetoed = self._kept.of("ranking", name, ranked)
        if not by_nfe:
            raise StudyConflict(f"study {name!r} has no schedule measured yet")
        nfe = query.whole("nfe", min(by_nfe))
        if nfe not in by_nfe:
            raise StudyConflict(f"study {name!r} has no schedule with {nfe} network calls")
        kind, text = query.first("kind"), query.first("text")
        rows = [each for each in by_nfe[nfe] if each.is_shown(kind, text)]
        start = max(0, min(query.whole("from", 0), len(rows) - 1))
        with open_study(self._url, name) as store:
            shown = rows[start : start + PAGE_SIZE]
            drawn = list(rows_of(store.schedule, shown, self._artifacts, name))
            is_final, words = store.state == "done", MetricWords.of(store.config.metric)
        asked = {"nfe": nfe, "kind": kind, "text": text}
        return self._page(
            "ranking",
            f"{name}: schedules",
            self._links(name),
            rows=drawn,
            asked=asked,
            known=sorted(by_nfe),
            total=len(by_nfe[nfe]),
            n_shown=len(rows),
            n_images=n_images,
            words=words,
            vetoed=vetoed,
            is_final=is_final,
            address=_address("ranking", name),
            compare=_address("compare", name),
            before=address_of(asked, max(0, start - PAGE_SIZE)) if start else None,
            after=address_of(asked, start + PAGE_SIZE) if start + PAGE_SIZE < len(rows) else None,
            size=PAGE_SIZE,
        )

    def _schedules(self, name: str, _query: Query) -> Answer:
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
            with self._drawing:
                return "200 OK", headers, picture_of(schedule)  # browsers style it by themselves
        with self._drawing:
            shown = shown_of(self._url, self._artifacts, schedule, self._remarks)
        studies = [row["study"] for row in shown["measured"]]
        links = self._links(studies[0]) if studies else _ELSEWHERE
        return self._page("schedule", f"Schedule {schedule.id[:8]}", links, **shown)

    # -- their parts -----------------------------------------------------------------------

    def _remarks(self, study: str) -> dict[str, str]:
        """Who is exported, by schedule id."""
        found: dict[str, str] = self._kept.of("remarks", study, remarks_of)
        return found

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
        links: Sequence[tuple[str, str]] = _ELSEWHERE,
        *,
        status: str = "200 OK",
        **content: Any,
    ) -> Answer:
        text = self._environment.get_template(f"{template}.html.j2").render(
            title=title,
            links=links,
            style=Markup(style_sheet()),
            script=Markup(script()),
            **content,
        )
        return _html(text, status=status)


def _html(text: str, *, status: str = "200 OK", policy: str = _POLICY) -> Answer:
    headers = {"Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": policy}
    return status, headers, text.encode()


def _address(page: str, study: str) -> str:
    return f"/{page}/{quote(study, safe='')}"
