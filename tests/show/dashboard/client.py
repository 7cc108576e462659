"""A WSGI application asked without a socket."""

import io
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes
from wsgiref.types import WSGIApplication
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()


def ask(
    application: WSGIApplication,
    path: str,
    method: str = "GET",
    *,
    content: Any = None,
    host: str = "127.0.0.1:8080",
    **headers: str,
) -> Answer:
    """One request, checked against the specification; headers as `Accept_Encoding="gzip"`."""
    path, _, query = path.partition("?")
    body = b"" if content is None else json.dumps(content).encode()
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query,
        "CONTENT_LENGTH": str(len(body)),
        "CONTENT_TYPE": "application/json",
        "HTTP_HOST": host,
        "wsgi.input": io.BytesIO(body),
        **{f"HTTP_{name.upper()}": value for name, value in headers.items()},
    }
    setup_testing_defaults(environ)
    said: list[Any] = []

    def start_response(status: str, found: list[tuple[str, str]], *error: Any) -> Any:
        said[:] = [
            int(status.split(maxsplit=1)[0]),
            {name.lower(): value for name, value in found},
        ]
        return lambda _: None

    answered = validator(application)(environ, start_response)
    try:
        content_bytes = b"".join(answered)
    finally:
        getattr(answered, "close", lambda: None)()
    return Answer(said[0], said[1], content_bytes)
