"""Processes of their own that have imported already what they run.

A fresh Python takes three seconds of a core until a search begins.  Here one takes them, once for
each process that runs tests, and those that are asked for are forked from it: their ids, their
deaths by signals and what they print are as real.
"""

import io
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread

import pytest

from s3search.cli.running import main
from tests.support.drawings import draw_once_in

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        *("s3search.cli.running", "s3search.cli.studies", "s3search.cli.dashboards"),
        *("s3search.run.launching", "s3search.show.dashboard", "tests.support.studies"),
    ]
)


def command_line(*words: str) -> None:
    """What `s3search` does with these words; as elsewhere no drawing is made twice."""
    draw_once_in(pytest.MonkeyPatch())
    sys.argv = ["s3search", *words]
    main()


class Forked:
    """A process that calls a function, with what tests use of `subprocess.Popen`.

    It reads nothing; ``stdout`` may be the descriptor of a file to print to.
    """

    def __init__(
        self,
        call: Callable[..., object],
        *arguments: object,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        stdout: int | None = None,
    ) -> None:
        (out, own_out), (err, own_err) = os.pipe(), os.pipe()
        printing = Connection(own_out if stdout is None else os.dup(stdout), readable=False)
        if stdout is not None:
            os.close(own_out)
        failing = Connection(own_err, readable=False)
        place = str(cwd or Path.cwd()), {**os.environ, **(env or {})}
        self._process = _CONTEXT.Process(
            target=_run, args=(*place, printing, failing, call, arguments), daemon=False
        )
        self._process.start()
        printing.close()
        failing.close()
        self.stdout, self.stderr = map(os.fdopen, (out, err))
        self._said: list[str] = ["", ""]

    @property
    def pid(self) -> int:
        """Its id."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """How it ended, None while it runs: minus a signal's number where it died of one."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """`returncode`."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """How it ends; raises `subprocess.TimeoutExpired`."""
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout or 0.0)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it prints until its end, from where nobody has read yet."""

        def read(i: int, stream: io.TextIOWrapper) -> None:
            self._said[i] = stream.read()

        streams = [(i, s) for i, s in enumerate((self.stdout, self.stderr)) if not s.closed]
        readers = [Thread(target=read, args=each, daemon=True) for each in streams]
        for reader in readers:
            reader.start()
        self.wait(timeout)
        for reader, (_, stream) in zip(readers, streams, strict=True):
            reader.join(timeout)
            stream.close()
        return self._said[0], self._said[1]

    def send_signal(self, number: int) -> None:
        """Sends it a signal, if it runs."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Ends it as ``kill -9`` does."""
        self.send_signal(signal.SIGKILL)


def _run(
    folder: str,
    env: Mapping[str, str],
    printing: Connection,
    failing: Connection,
    call: Callable[..., object],
    arguments: tuple[object, ...],
) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for connection, number in ((printing, 1), (failing, 2)):
        os.dup2(connection.fileno(), number)
        connection.close()
    sys.stdout, sys.stderr = (os.fdopen(n, "w", closefd=False) for n in (1, 2))
    try:
        call(*arguments)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
