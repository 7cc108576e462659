"""How connections are made: what notices a server that has gone without a word."""

import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from s3search.study.database.engine import connect_arguments
from s3search.study.database.retries import PATIENCE_SECONDS
from tests.conftest import socket_of
from tests.support.cut_network import CutNetwork

_OPTIONS = {
    "keepalives_idle": socket.TCP_KEEPIDLE,
    "keepalives_interval": socket.TCP_KEEPINTVL,
    "keepalives_count": socket.TCP_KEEPCNT,
    "tcp_user_timeout": socket.TCP_USER_TIMEOUT,
}


@pytest.fixture(scope="module")
def tcp_url(postgres_server: Any) -> Iterator[str]:
    with CutNetwork(socket_of(postgres_server), cut_every=1) as network:
        yield f"postgresql+psycopg://postgres@127.0.0.1:{network.port}/postgres"


def _options(url: str) -> dict[str, int]:
    """What the kernel was told of a connection."""
    engine = sa.create_engine(url, **connect_arguments(url))
    try:
        with engine.connect() as connection:
            raw = connection.connection.dbapi_connection
            assert raw is not None
            found = socket.socket(fileno=os.dup(raw.fileno()))
            with found:
                assert found.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
                return {k: found.getsockopt(socket.SOL_TCP, v) for k, v in _OPTIONS.items()}
    finally:
        engine.dispose()


def test_a_server_that_is_silently_gone_is_noticed_within_the_patience(tcp_url: str) -> None:
    options = _options(tcp_url)
    probes = options["keepalives_interval"] * options["keepalives_count"]
    assert options["keepalives_idle"] + probes <= PATIENCE_SECONDS / 2
    assert 0 < options["tcp_user_timeout"] <= 1000 * PATIENCE_SECONDS / 2


def test_what_the_url_says_of_its_connections_wins(tcp_url: str) -> None:
    options = _options(f"{tcp_url}?keepalives_idle=77&tcp_user_timeout=5000")
    assert (options["keepalives_idle"], options["tcp_user_timeout"]) == (77, 5000)
    assert options["keepalives_count"] == _options(tcp_url)["keepalives_count"]


def test_other_drivers_are_given_no_option_of_libpq() -> None:
    assert connect_arguments("postgresql+pg8000://ann@db/s3search") == {"pool_pre_ping": True}
