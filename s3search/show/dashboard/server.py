"""One process, one port: Optuna dashboard on a study database, behind the guard."""

import ipaddress
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn
from wsgiref.types import WSGIApplication

import optuna
from optuna.storages import BaseStorage

from s3search.errors import InvalidConfig
from s3search.show.dashboard.artifacts import ArtifactFolder, artifacts_folder
from s3search.show.dashboard.dressing import dressed, name_pages_of_schedules
from s3search.show.dashboard.guard import Access, guarded
from s3search.show.dashboard.order import keep_order
from s3search.show.dashboard.pages import Pages
from s3search.show.dashboard.storage import open_storage
from s3search.study.database.engine import redacted
from s3search.study.optuna.storage import closed_after

LOOPBACK = "127.0.0.1"
_LAST_PORT = 65_535
_LIMITS = {  # who is slow waits in a buffer, and holds none of the threads that answer
    "threads": 8,
    "connection_limit": 400,
    "backlog": 1024,  # connections that the system keeps until they are taken
    "channel_timeout": 60,  # seconds without a byte
    "max_request_header_size": 2**16,
    "max_request_body_size": 2**26,  # a file for an artifact
    "asyncore_use_poll": True,  # select() takes no more than 1,024 files
    "ident": None,
}


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


def serve(
    url: str,
    address: Address,
    access: Access,
    announce: Callable[[dict[str, Any]], None],
    *,
    artifacts: str | Path | None = None,
) -> NoReturn:
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
        server = _listening(served, address)
        at = f"http://{address.host}:{server.effective_port}"
        found = {"url": f"{at}/dashboard", "overview": f"{at}/studies"}
        announce({**found, "storage": redacted(url), "writable": access.writable})
        try:
            server.run()  # returns when it is interrupted
        finally:
            server.close()
        raise KeyboardInterrupt


def _listening(served: WSGIApplication, address: Address) -> Any:
    import waitress  # type: ignore[import-untyped]  # noqa: PLC0415  # of the extra `dashboard`

    if not 0 <= address.port <= _LAST_PORT:  # the system would take it modulo 65,536
        raise InvalidConfig(f"--port {address.port}: there are ports from 0 to {_LAST_PORT:,}")
    logging.getLogger("waitress").setLevel(logging.ERROR)  # requests are not news
    is_ipv6 = ":" in address.host
    family = {"ipv4": not is_ipv6, "ipv6": is_ipv6}
    try:
        return waitress.create_server(
            served, host=address.host, port=address.port, **family, **_LIMITS
        )
    except (OSError, OverflowError, ValueError) as error:
        raise InvalidConfig(
            f"--host, --port: cannot listen on {address.host}:{address.port} ({error})"
        ) from error


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
        import waitress  # noqa: F401, PLC0415  # of the same extra
    except ImportError as error:
        raise InvalidConfig(
            "the dashboard needs optuna-dashboard and waitress; "
            "pip install 'optuna-dashboard==0.21.*' 'waitress>=3'"
        ) from error
    keep_order()
    name_pages_of_schedules()
    folder = artifacts_folder(url, artifacts)
    with closed_after(open_storage(url, writable=access.writable)) as rdb:
        cached: BaseStorage = optuna.storages.get_storage(rdb)
        store = None if folder is None else ArtifactFolder(folder)
        embedded = optuna_dashboard.wsgi(cached, artifact_store=store)
        shown = dressed(embedded, writable=access.writable)
        yield guarded(Pages(url, folder).before(shown), access)
