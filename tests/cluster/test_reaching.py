"""What listens at an address is asked whether it is a Ray, and each cause has its own sentence."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import HTTPServer, SimpleHTTPRequestHandler

import grpc
import pytest
import ray
from ray._private.utils import check_version_info

from s3search.cluster.ray.reaching import cause_of, prove
from s3search.errors import WorkersUnavailable
from tests.suites.pool_suite import start_ray

SECONDS = 15.0  # an answer, on a machine that is busy


@contextmanager
def _web_server() -> Iterator[int]:
    with HTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@contextmanager
def _silent() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@contextmanager
def _another_grpc() -> Iterator[int]:
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port
    server.stop(None).wait()


@pytest.mark.parametrize("scheme", ["", "ray://"])
@pytest.mark.parametrize("listener", [_web_server, _silent, _another_grpc])
def test_what_is_no_ray_is_refused_in_seconds(listener: object, scheme: str) -> None:
    assert callable(listener)
    with listener() as port:
        began = time.monotonic()
        with pytest.raises(WorkersUnavailable, match="'host:6379' names the port of the head"):
            prove(f"{scheme}127.0.0.1:{port}")
        assert time.monotonic() - began < SECONDS


@pytest.mark.cluster
def test_the_head_of_a_cluster_is_known_and_is_no_server_of_clients() -> None:
    start_ray()
    address = ray.get_runtime_context().gcs_address
    prove(address)
    with pytest.raises(WorkersUnavailable, match="is not the server of clients"):
        prove(f"ray://{address}")


def test_another_ray_is_named_with_both_versions() -> None:
    theirs = {"ray_version": "2.9.0", "python_version": "3.9.1"}
    with pytest.raises(RuntimeError) as caught:
        check_version_info(theirs, "127.0.0.1")
    said = cause_of("head:6379", caught.value)
    assert (
        f"the cluster runs Ray 2.9.0 with Python 3.9.1, this process Ray {ray.__version__}" in said
    )
    assert "pip install ray==2.9.0" in said
    assert "TOKEN" not in said


def test_a_refused_token_is_named() -> None:
    said = cause_of("head:6379", ray.exceptions.AuthenticationError("no valid token"))
    assert "asks for a token and refused ours" in said
    assert "version" not in said.lower()


_TRIES = """
import os, sys
from s3search.cluster.ray.cluster import connect
from s3search.errors import WorkersUnavailable
try:
    connect("local", 1)
except WorkersUnavailable as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("variables", "cause"),
    [
        ({"RAY_TMPDIR": "/tmp/" + "x" * 100}, "($RAY_TMPDIR), and a socket's path may have 107"),
        (
            {"HOME": "/dev/null/nobody"},
            "keeps its token in $HOME/.ray, and that cannot be written",
        ),
    ],
)
def test_a_long_or_a_missing_folder_is_named(variables: dict[str, str], cause: str) -> None:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    path = os.pathsep.join(sys.path)
    ended = subprocess.run(
        [sys.executable, "-c", _TRIES],
        env={**inherited, "PYTHONPATH": path, **variables},
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    assert cause in ended.stdout, ended
