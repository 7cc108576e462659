"""Nodes of a real Ray cluster, each with its own raylet, all on this machine."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import s3search

ROOT = Path(s3search.__file__).parents[1]
_SHELL = """
import contextlib, io, json, sys
import pytest
from s3search.cli import run
from tests.support.drawings import draw_once_in
draw_once_in(pytest.MonkeyPatch())
for line in sys.stdin:
    sys.argv = ["s3search", *json.loads(line)]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run()
    print(json.dumps([code, out.getvalue(), err.getvalue()]), flush=True)
"""
_PATIENCE = 120.0  # seconds for a node to start on a busy machine
_SHORT = {
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "2",  # before a node that is told to end does so
    "RAY_GRACEFUL_SHUTDOWN_POLL_INTERVAL_S": "0.1",
}
_SOON = {  # a lost node is asked in vain two times, half a second apart; one that is slow has 10 s
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_failure_threshold": "2",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a command left behind."""

    code: int
    out: str
    err: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Node:
    """A `ray start` in the foreground, and the s3search that its workers run."""

    process: "subprocess.Popen[bytes]"
    log: IO[str]
    root: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class RayCluster:
    """A head without a CPU, with token authentication, and nodes of one CPU each.

    A node that was lost is known to be dead after two seconds, not fourteen.
    """

    gcs: str  # host:port that nodes join
    dashboard: str  # http://host:port of the job server
    client: str  # ray://host:port
    environment: dict[str, str]
    shell: "subprocess.Popen[str]"
    folder: Path
    nodes: list[_Node] = field(default_factory=list)
    orphans: list[int] = field(default_factory=list)  # processes whose raylet was killed

    def resize(self, n: int) -> None:
        """Exactly ``n`` living nodes; those that a test before this one has left are taken."""
        self.tidy()
        kept = [node for node in self.nodes if node.root == ROOT][:n]
        self._leave([node for node in self.nodes if node not in kept])
        self._join([ROOT] * (n - len(self.nodes)))

    def join(self, root: Path = ROOT) -> None:
        """One more node, whose s3search is that of ``root``."""
        self._join([root])

    def tidy(self) -> None:
        """Forgets the nodes that are dead, and ends what they left behind."""
        for pid in self.orphans:
            with contextlib.suppress(OSError):
                if Path("/proc", str(pid), "cmdline").read_text().startswith("ray::"):
                    os.kill(pid, signal.SIGKILL)
        self.orphans.clear()
        self._leave([node for node in self.nodes if node.process.poll() is not None])

    def end(self) -> None:
        """Without any node."""
        self.tidy()
        self._leave(list(self.nodes))

    def _join(self, roots: Sequence[Path]) -> None:
        begun = []
        for root in roots:
            own = Path(tempfile.mkdtemp(dir=self.folder))  # two in one fight for their sockets
            options = ["--address", self.gcs, "--num-cpus=1", f"--temp-dir={own}"]
            begun.append(_begin(options, self.environment | {"PYTHONPATH": str(root)}, root))
        self.nodes.extend(begun)
        for node in begun:
            _await(node)

    def _leave(self, nodes: Sequence[_Node]) -> None:
        for node in nodes:
            node.process.terminate()
        for node in nodes:
            _stop(node)
            self.nodes.remove(node)

    def kill_raylet_above(self, pid: int) -> None:
        """kill -9 of the raylet of a worker process, which may live on for a while."""
        (raylet,) = (p for p in _ancestors(pid) if _name(p) == "raylet")
        self.orphans.extend(_descendants(raylet))
        os.kill(raylet, signal.SIGKILL)

    def kill_node_of(self, pid: int) -> None:
        """kill -9 of everything on the node of a worker process, as when a machine is lost."""
        (node,) = (p for p in _ancestors(pid) if _name(p) == "ray")
        for process in (node, *_descendants(node)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    def end_node_of(self, pid: int) -> None:
        """SIGTERM for the node of a worker process, as when a machine is drained."""
        (node,) = (p for p in _ancestors(pid) if _name(p) == "ray")
        os.kill(node, signal.SIGTERM)

    def run(self, *arguments: object) -> Said:
        """`s3search` with ``arguments``, in the one process that knows the token and has Ray
        loaded: that takes two seconds.
        """
        assert self.shell.stdin is not None
        assert self.shell.stdout is not None
        self.shell.stdin.write(json.dumps([str(word) for word in arguments]) + "\n")
        self.shell.stdin.flush()
        code, out, err = json.loads(self.shell.stdout.readline())
        return Said(code=code, out=out, err=err)

    def run_apart(self, *arguments: object, **environment: str) -> Said:
        """The same in a process of its own, with other variables."""
        told = subprocess.run(
            [sys.executable, "-m", "s3search", *map(str, arguments)],
            env=self.environment | environment,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
        return Said(code=told.returncode, out=told.stdout, err=told.stderr)


@contextmanager
def ray_cluster(**environment: str) -> Iterator[RayCluster]:
    """A head with ``environment``; everything ends with the context."""
    folder = Path(tempfile.mkdtemp(prefix="s3", dir="/tmp"))  # Ray's sockets need a short path
    ports = _free_ports(3)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "S3SEARCH_"))}
    common = kept | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "of-this-test-only-" * 3,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_raylet_start_wait_time_s": f"{_PATIENCE:.0f}",
        **_SHORT,
    }
    options = [
        *("--head", "--num-cpus=0", f"--port={ports[0]}", f"--dashboard-port={ports[1]}"),
        *(f"--ray-client-server-port={ports[2]}", f"--temp-dir={folder / 'ray'}"),
    ]
    try:
        head = _begin(options, common | _SOON | environment, ROOT)
        try:
            with _shell(common) as shell:  # loads while the head starts
                _await(head)
                cluster = RayCluster(
                    gcs=f"127.0.0.1:{ports[0]}",
                    dashboard=f"http://127.0.0.1:{ports[1]}",
                    client=f"ray://127.0.0.1:{ports[2]}",
                    environment=common,
                    shell=shell,
                    folder=folder,
                )
                try:
                    yield cluster
                finally:
                    cluster.end()
        finally:
            _stop(head)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _shell(environment: dict[str, str]) -> Iterator["subprocess.Popen[str]"]:
    """A process that runs a command per line of its input; it ends with that."""
    with subprocess.Popen(
        [sys.executable, "-c", _SHELL],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as shell:
        yield shell


def _begin(arguments: list[str], environment: dict[str, str], root: Path) -> _Node:
    """`ray start` in the foreground; SIGTERM ends all that it began."""
    common = ["--num-gpus=0", "--object-store-memory=100000000", "--include-log-monitor=false"]
    common.append("--dashboard-agent-listen-port=0")  # any: the nodes share a machine
    log = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed with the node
    process = subprocess.Popen(
        [str(Path(sys.executable).with_name("ray")), "start", "--block", *common, *arguments],
        env=environment,
        cwd="/",
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    return _Node(process=process, log=log, root=root)


def _await(node: _Node) -> None:
    """Until it says that it runs."""
    deadline = time.monotonic() + _PATIENCE
    while "block forever" not in _text(node.log):
        if node.process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"ray start failed: {_text(node.log)}")
        time.sleep(0.1)


def _stop(node: _Node) -> None:
    node.process.terminate()
    try:
        node.process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        node.process.kill()
    node.log.close()


def _ancestors(pid: int, parents: Mapping[int, int] | None = None) -> list[int]:
    parents = _parents() if parents is None else parents
    found = [pid]
    while found[-1] in parents:
        found.append(parents[found[-1]])
    return found


def _descendants(pid: int) -> list[int]:
    parents = _parents()
    return [other for other in parents if other != pid and pid in _ancestors(other, parents)]


def _parents() -> dict[int, int]:
    """The parent of every process of this machine."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            found[int(folder.name)] = int(
                (folder / "stat").read_text().rsplit(")", 1)[1].split()[1]
            )
    return found


def _name(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path("/proc", str(pid), "comm").read_text().strip()
    return ""


def _text(log: IO[str]) -> str:
    log.seek(0)
    return log.read()


def _free_ports(n: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
