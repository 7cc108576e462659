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
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import s3search

ROOT = Path(s3search.__file__).parents[1]
_SHELL = """
import contextlib, io, json, sys
from s3search.cli import run
for line in sys.stdin:
    sys.argv = ["s3search", *json.loads(line)]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run()
    print(json.dumps([code, out.getvalue(), err.getvalue()]), flush=True)
"""
_PATIENCE = 120.0  # seconds for a node to start on a busy machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a command left behind."""

    code: int
    out: str
    err: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RayCluster:
    """Nodes, with token authentication: a head, and those that `join`, of one CPU each."""

    gcs: str  # host:port that nodes join
    dashboard: str  # http://host:port of the job server
    client: str  # ray://host:port
    environment: dict[str, str]
    nodes: ExitStack
    orphans: list[int]  # processes whose raylet was killed, to be ended with the cluster
    shell: "subprocess.Popen[str]"

    def join(self, root: Path = ROOT) -> None:
        """A node whose s3search is that of ``root``."""
        self.nodes.enter_context(
            _ray_start(
                ["--address", self.gcs],
                self.environment | {"PYTHONPATH": str(root)},
            )
        )

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
def ray_cluster(n_more: int, *, head_cpus: int = 1, **environment: str) -> Iterator[RayCluster]:
    """A head with ``environment`` and ``n_more`` nodes; everything ends with the context."""
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
    }
    head = [
        *("--head", f"--port={ports[0]}", f"--dashboard-port={ports[1]}"),
        *(f"--ray-client-server-port={ports[2]}", f"--temp-dir={folder / 'ray'}"),
    ]
    try:
        with ExitStack() as nodes:
            nodes.enter_context(_ray_start(head, common | environment, head_cpus))
            orphans: list[int] = []
            nodes.callback(_end, orphans)
            cluster = RayCluster(
                gcs=f"127.0.0.1:{ports[0]}",
                dashboard=f"http://127.0.0.1:{ports[1]}",
                client=f"ray://127.0.0.1:{ports[2]}",
                environment=common,
                nodes=nodes,
                orphans=orphans,
                shell=nodes.enter_context(_shell(common)),
            )
            for _ in range(n_more):
                cluster.join()
            yield cluster
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


@contextmanager
def _ray_start(
    arguments: list[str], environment: dict[str, str], n_cpus: int = 1
) -> Iterator[None]:
    """`ray start` in the foreground until it says that it runs; SIGTERM ends all that it began."""
    sizes = [f"--num-cpus={n_cpus}", "--num-gpus=0", "--object-store-memory=100000000"]
    sizes.append("--dashboard-agent-listen-port=0")  # any: the nodes share a machine
    with tempfile.TemporaryFile("w+") as log:
        node = subprocess.Popen(
            [str(Path(sys.executable).with_name("ray")), "start", "--block", *sizes, *arguments],
            env=environment,
            cwd="/",
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            deadline = time.monotonic() + _PATIENCE
            while "block forever" not in _text(log):
                if node.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"ray start {arguments} failed: {_text(log)}")
                time.sleep(0.2)
            yield
        finally:
            node.terminate()
            try:
                node.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                node.kill()


def _end(pids: list[int]) -> None:
    """kill -9 of those that are still processes of Ray's."""
    for pid in pids:
        with contextlib.suppress(OSError):
            if Path("/proc", str(pid), "cmdline").read_text().startswith("ray::"):
                os.kill(pid, signal.SIGKILL)


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


def _text(log: "tempfile._TemporaryFileWrapper[str]") -> str:
    log.seek(0)
    return log.read()


def _free_ports(n: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
