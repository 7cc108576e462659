"""One process, one port: Optuna dashboard on a study database, behind the guard."""

import ipaddress
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
from wsgiref.types import WSGIApplication

import optuna
from optuna.storages import BaseStorage

from s3search.errors import InvalidConfig
from s3search.show.dashboard.artifacts import ArtifactFolder, artifacts_folder
from s3search.show.dashboard.guard import Access, guarded
from s3search.show.dashboard.order import keep_order
from s3search.show.dashboard.pages import Pages
from s3search.show.dashboard.storage import open_storage
from s3search.study.database.engine import redacted
from s3search.study.optuna.storage import closed_after

LOOPBACK = "127.0.0.1"
_IDLE_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens."""

    host: str = LOOPBACK
    port: int = 8080

    @property
    def is_loopback(self) -> bool:
        """Whether nothing but this machine reaches it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


class _ThreadingServer(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _QuietHandler(WSGIRequestHandler):
    timeout = _IDLE_SECONDS

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not news."""


def serve(
    url: str,
    address: Address,
    access: Access,
    announce: Callable[[dict[str, Any]], None],
    *,
    artifacts: str | Path | None = None,
) -> None:
    """Serves until interrupted; ``announce`` gets {"url": ...} once the port is open.
    ``artifacts`` is their folder, where it is not the database's own.

    Raises `InvalidConfig` for an address that others reach without a login.
    """
    if not address.is_loopback and access.login is None:
        raise InvalidConfig(
            f"--host {address.host}: other machines would reach the dashboard without a login; "
            "give --password-file, or leave --host out and come through an SSH tunnel"
        )
    with application(url, access, artifacts=artifacts) as served:
        try:
            server = _ThreadingServer((address.host, address.port), _QuietHandler)
        except (OSError, OverflowError) as error:
            raise InvalidConfig(
                f"--host, --port: cannot listen on {address.host}:{address.port} ({error})"
            ) from error
        server.set_app(served)
        at = f"http://{address.host}:{server.server_port}"
        found = {"url": f"{at}/dashboard", "overview": f"{at}/studies"}
        announce({**found, "storage": redacted(url), "writable": access.writable})
        with server:
            server.serve_forever()


@contextmanager
def application(
    url: str, access: Access, *, artifacts: str | Path | None = None
) -> Iterator[WSGIApplication]:
    """The guarded application on a database that holds a study; its connections are closed after.

    Raises `InvalidConfig` without optuna-dashboard or for a URL that leads nowhere, and
    `StudyConflict` for a database without trials.
    """
    try:
        import optuna_dashboard  # type: ignore[import-untyped]  # noqa: PLC0415  # an extra
    except ImportError as error:
        raise InvalidConfig(
            "the dashboard needs optuna-dashboard; pip install 'optuna-dashboard==0.21.*'"
        ) from error
    keep_order()
    folder = artifacts_folder(url, artifacts)
    with closed_after(open_storage(url, writable=access.writable)) as rdb:
        cached: BaseStorage = optuna.storages.get_storage(rdb)
        store = None if folder is None else ArtifactFolder(folder)
        embedded = optuna_dashboard.wsgi(cached, artifact_store=store)
        yield guarded(Pages(url, folder).before(embedded), access)
