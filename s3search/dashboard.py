"""Optuna dashboard on a study database, on the loopback interface only."""

from collections.abc import Callable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from s3search.errors import InvalidConfig
from s3search.study.database import open_engine, redacted

HOST = "127.0.0.1"


class _ThreadingServer(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not news."""


def serve(url: str, port: int, announce: Callable[[dict[str, Any]], None]) -> None:
    """Serves until interrupted; ``announce`` gets {"url": ...} once the port is open."""
    open_engine(
        url, create=False
    ).dispose()  # a database without studies is an error, not a new file
    try:
        import optuna_dashboard  # type: ignore[import-untyped]  # noqa: PLC0415  # an extra
    except ImportError as error:
        raise InvalidConfig(
            "the dashboard needs optuna-dashboard; pip install 's3search[dashboard]'"
        ) from error
    application = optuna_dashboard.wsgi(url)

    def with_encoding(environ: dict[str, Any], start_response: Any) -> Any:
        # optuna-dashboard 0.21 answers 500 to a request without this header
        environ.setdefault("HTTP_ACCEPT_ENCODING", "")
        return application(environ, start_response)

    try:
        server = _ThreadingServer((HOST, port), _QuietHandler)
    except (OSError, OverflowError) as error:
        raise InvalidConfig(f"--port: cannot listen on {HOST}:{port} ({error})") from error
    server.set_app(with_encoding)
    announce({"url": f"http://{HOST}:{server.server_port}/dashboard", "storage": redacted(url)})
    with server:
        server.serve_forever()
