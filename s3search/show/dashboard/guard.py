"""What stands between a browser and Optuna dashboard, which by itself lets anyone delete studies.

Every request passes, in this order:

    the Host header   names this machine or an allowed name: a foreign page whose name was made to
                      point here (DNS rebinding) does not
    the login         where there is one: HTTP basic (`s3search.show.dashboard.logins`), and after
                      some that failed not looked at for a while
                      (`s3search.show.dashboard.throttle`)
    the method        reading only, unless opened for writing
    the origin        a change comes from our own pages, not from a form on a foreign one

Answers leave with headers that keep other pages from framing them and browsers from guessing.
"""

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from s3search.show.dashboard.logins import Login
from s3search.show.dashboard.throttle import Throttle

THIS_MACHINE = frozenset({"localhost", "127.0.0.1", "::1"})

_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_READ_ONLY = (
    "This dashboard is read-only. To add notes or tags, or to delete, start it again with "
    "`s3search dashboard --writable`."
)
_ASKS_LOGIN = (("WWW-Authenticate", 'Basic realm="s3search", charset="UTF-8"'),)
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_DOCUMENT = "default-src 'none'; frame-ancestors 'none'"  # of what has no policy of its own
_DROPPED = frozenset({"access-control-allow-origin"})  # Optuna's artifacts: to be read by anyone


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Who may come, under which names, and whether they may change anything."""

    hosts: frozenset[str] = frozenset()  # beside this machine's own names
    login: Login | None = None
    writable: bool = False


@dataclass(frozen=True, slots=True)
class _Refusal:
    status: HTTPStatus
    sentence: str
    headers: tuple[tuple[str, str], ...] = ()


def guarded(application: WSGIApplication, access: Access) -> WSGIApplication:
    """The application behind the guard."""
    throttle = Throttle()

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start = _with_headers(start_response, str(environ.get("PATH_INFO", "")))
        refusal = _refusal(environ, access, throttle)
        if refusal is not None:
            return _refuse(refusal, environ, start)
        # optuna-dashboard 0.21 answers 500 to a request without this header
        environ.setdefault("HTTP_ACCEPT_ENCODING", "")
        return application(environ, start)

    return answer


def _refusal(environ: WSGIEnvironment, access: Access, throttle: Throttle) -> _Refusal | None:
    host = str(environ.get("HTTP_HOST", ""))
    if _name_of(host) not in THIS_MACHINE | access.hosts:
        return _Refusal(
            HTTPStatus.FORBIDDEN,
            "This dashboard was asked for under a name that it does not go by. "
            "Allow the name with `s3search dashboard --allow-host NAME`.",
        )
    refusal = _login_refusal(environ, access, throttle)
    if refusal is not None:
        return refusal
    if environ["REQUEST_METHOD"] in _READING:
        return None
    if not access.writable:
        return _Refusal(HTTPStatus.FORBIDDEN, _READ_ONLY)
    if not _is_own(environ, host):
        return _Refusal(HTTPStatus.FORBIDDEN, "Changes are taken from the dashboard's own pages.")
    return None


def _login_refusal(
    environ: WSGIEnvironment, access: Access, throttle: Throttle
) -> _Refusal | None:
    header = str(environ.get("HTTP_AUTHORIZATION", ""))
    if access.login is None:
        return None
    if not header:  # a browser asks before it logs in
        return _Refusal(HTTPStatus.UNAUTHORIZED, "This dashboard asks for a login.", _ASKS_LOGIN)
    address = str(environ.get("REMOTE_ADDR", ""))
    seconds = throttle.seconds_to_wait(address)
    if seconds > 0.0:
        sentence = f"Logins from here failed too often; try again in {math.ceil(seconds)} s."
        after = (("Retry-After", str(math.ceil(seconds))),)
        return _Refusal(HTTPStatus.TOO_MANY_REQUESTS, sentence, after)
    if not access.login.opens(header):
        throttle.failed(address)
        return _Refusal(HTTPStatus.UNAUTHORIZED, "This dashboard asks for a login.", _ASKS_LOGIN)
    throttle.succeeded(address)
    return None


def _is_own(environ: WSGIEnvironment, host: str) -> bool:
    """Whether a change comes from a page of ours, or from no page at all."""
    origin = environ.get("HTTP_ORIGIN")
    if origin is not None:
        return urlsplit(str(origin)).netloc.lower() == host.lower()
    return environ.get("HTTP_SEC_FETCH_SITE", "none") in ("none", "same-origin")


def _name_of(host: str) -> str | None:
    """The name in a Host header, without its port; None if it is none."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def _refuse(
    refusal: _Refusal, environ: WSGIEnvironment, start_response: StartResponse
) -> Iterable[bytes]:
    """As the one who asks expects it: the dashboard's script shows a JSON's `reason`."""
    is_api = str(environ.get("PATH_INFO", "")).startswith("/api/")
    text = json.dumps({"reason": refusal.sentence}) if is_api else f"{refusal.sentence}\n"
    body = text.encode()
    kind = "application/json" if is_api else "text/plain; charset=utf-8"
    headers = [("Content-Type", kind), ("Content-Length", str(len(body))), *refusal.headers]
    start_response(f"{refusal.status.value} {refusal.status.phrase}", headers)
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]


def _with_headers(start_response: StartResponse, path: str) -> StartResponse:
    """``start_response`` that adds the headers of every answer."""

    def start(status: str, headers: list[tuple[str, str]], *error: Any) -> Callable[..., object]:
        kept = [(name, value) for name, value in headers if name.lower() not in _DROPPED]
        names = {name.lower() for name, _ in kept}
        if path.startswith("/artifacts/"):  # whatever the file is, it runs nothing of ours
            kept.append(("Content-Security-Policy", f"{_DOCUMENT}; sandbox"))
        elif "content-security-policy" not in names:
            kept.append(("Content-Security-Policy", _DOCUMENT))
        kept += [(name, value) for name, value in _HEADERS.items() if name.lower() not in names]
        return start_response(status, kept, *error)

    return start
