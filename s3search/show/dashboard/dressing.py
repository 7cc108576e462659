"""Optuna dashboard's pages in our dress: as wide as the window, in its theme, without buttons for
what is refused.

optuna-dashboard 0.21 shows every attribute of a trial on one line, so that a schedule makes its
page twelve thousand pixels wide, and sends all of them for every trial.  The attribute stays in
the database; what is sent names the schedule's own page instead, and where nobody can write notes
a trial's note begins with a link to it.
"""

from collections.abc import Callable, Iterable
from contextvars import ContextVar
from pathlib import Path
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

_FOLDER = Path(__file__).parent / "templates"
_ADDRESS = "/s3search.css"
_LINK = f'<link rel="stylesheet" href="{_ADDRESS}"></head>'.encode()
_WRITABLE: ContextVar[bool] = ContextVar("writable")


def dressed(application: WSGIApplication, *, writable: bool) -> WSGIApplication:
    """Optuna dashboard with our style sheet."""
    names = ("optuna.css",) if writable else ("optuna.css", "read_only.css")
    style = "".join((_FOLDER / name).read_text(encoding="utf-8") for name in names).encode()

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        _WRITABLE.set(writable)
        path = str(environ.get("PATH_INFO", ""))
        if path == _ADDRESS:
            headers = [("Content-Type", "text/css"), ("Content-Length", str(len(style)))]
            start_response("200 OK", headers)
            return [style]
        if not path.startswith("/dashboard"):
            return application(environ, start_response)
        environ.pop("HTTP_IF_MODIFIED_SINCE", None)  # of a page without the link
        return _with_link(application, environ, start_response)

    return answer


def name_pages_of_schedules() -> None:
    """Makes optuna-dashboard send the address of a schedule's page in place of the schedule, in
    this process.
    """
    from optuna_dashboard import (  # type: ignore[import-untyped]  # noqa: PLC0415  # an extra
        _serializer,
    )

    original = _serializer.serialize_frozen_trial
    if getattr(original, "names_pages", False):
        return

    def serialized(study_id: int, trial: Any, system_attrs: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = original(study_id, trial, system_attrs)
        schedule_id = trial.user_attrs.get("schedule_id")
        if not isinstance(schedule_id, str) or not schedule_id.isalnum():
            return found
        page = f"/schedules/{schedule_id}"
        for each in found["user_attrs"]:
            if each["key"] == "schedule":
                each["value"] = page
        if not _WRITABLE.get(True):
            note = found["note"]
            text = f"[Drawing, samples and JSON of its schedule]({page})\n\n{note['body']}"
            found["note"] = {**note, "body": text.strip()}
        return found

    serialized.names_pages = True  # type: ignore[attr-defined]
    _serializer.serialize_frozen_trial = serialized


def _with_link(
    application: WSGIApplication, environ: WSGIEnvironment, start_response: StartResponse
) -> Iterable[bytes]:
    said: list[Any] = []

    def keep(status: str, headers: list[tuple[str, str]], *_: Any) -> Callable[..., object]:
        said[:] = [status, headers]
        return lambda _: None

    pieces = application(environ, keep)
    body = b"".join(pieces).replace(b"</head>", _LINK)
    getattr(pieces, "close", lambda: None)()
    status, headers = said
    dropped = ("content-length", "last-modified", "etag")
    kept = [(name, value) for name, value in headers if name.lower() not in dropped]
    length = len(body) or next((v for n, v in headers if n.lower() == "content-length"), 0)
    start_response(status, [*kept, ("Content-Length", str(length)), ("Cache-Control", "no-cache")])
    return [body]
