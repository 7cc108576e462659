"""The dashboard under load: many clients at once, slow ones, and those who guess passwords."""

import base64
import json
import socket
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import bcrypt
import pytest

import s3search
from s3search.show.dashboard import Access, Login, application
from s3search.show.dashboard.throttle import FREE_FAILURES, LONGEST_SECONDS, Throttle
from s3search.study.file.config import StudyConfig
from tests.show.dashboard.client import ask
from tests.support.forked import Forked, command_line

ROOT = Path(s3search.__file__).parents[1]
_CLIENTS, _SLOW, _THREADS = 100, 200, 40


@pytest.fixture
def served(finished: StudyConfig) -> Iterator[tuple[int, int]]:
    """A dashboard in a process of its own: its port and the process."""
    words = ["dashboard", "--port", "0", "--json", "--storage", finished.storage.url]
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = Forked(command_line, *words, env=environment)
    said = ""
    while not said.endswith("}\n"):
        said += process.stdout.readline()
    yield int(json.loads(said)["url"].split(":")[2].split("/")[0]), process.pid
    process.send_signal(2)
    process.communicate(timeout=60)
    assert process.returncode == 130


def _threads(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("Threads:"))


def test_many_and_slow_clients_are_served_by_few_threads(served: tuple[int, int]) -> None:
    port, pid = served
    with ExitStack() as stack:
        for _ in range(_SLOW):
            slow = stack.enter_context(socket.create_connection(("127.0.0.1", port), 60))
            slow.sendall(b"GET /studies HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ")  # and no more

        def look(_: int) -> int:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/studies", timeout=120) as page:
                return int(page.status)

        with ThreadPoolExecutor(_CLIENTS) as clients:
            assert list(clients.map(look, range(_CLIENTS))) == [200] * _CLIENTS
        assert _threads(pid) < _THREADS


def test_after_failed_logins_even_the_right_one_waits(
    finished: StudyConfig, tmp_path: Path
) -> None:
    file = tmp_path / "logins"
    file.write_text(f"ann:{bcrypt.hashpw(b'right', bcrypt.gensalt(4)).decode()}")
    right, wrong = (
        "Basic " + base64.b64encode(f"ann:{word}".encode()).decode() for word in ("right", "wrong")
    )
    access = Access(login=Login.from_file(file))
    with application(finished.storage.url, access) as shown:
        for _ in range(FREE_FAILURES):
            assert ask(shown, "/studies", Authorization=wrong).status == 401
        assert ask(shown, "/studies", Authorization=right).status == 200  # which forgives them
        for _ in range(FREE_FAILURES + 1):
            assert ask(shown, "/studies", Authorization=wrong).status == 401
        refused = ask(shown, "/studies", Authorization=right)
        assert refused.status == 429
        assert "try again in 1 s" in refused.text
        assert ask(shown, "/studies").status == 401  # who asks without a login is not guessing


def test_the_wait_doubles_and_is_of_one_address() -> None:
    now = 0.0
    throttle = Throttle(lambda: now)
    waits = []
    for _ in range(FREE_FAILURES + 10):
        throttle.failed("a")
        waits.append(throttle.seconds_to_wait("a"))
        now += waits[-1]
    assert waits[: FREE_FAILURES + 3] == [0.0] * FREE_FAILURES + [0.5, 1.0, 2.0]
    assert waits[-1] == LONGEST_SECONDS
    assert throttle.seconds_to_wait("b") == 0.0
    throttle.succeeded("a")
    throttle.failed("a")
    assert throttle.seconds_to_wait("a") == 0.0
