"""Whether Ray answers at an address, and why it could not be joined or started, cause by cause.

A listener is not a cluster: ``ray.init`` at the port of anything else, Ray's own dashboard or its
server of clients too, takes a quarter of an hour to an error.  So the server is asked for what
only the right one has, which takes seconds.
"""

import os
import re
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import ray

from s3search.errors import WorkersUnavailable

PROBE_SECONDS = 5.0
_HTTP2_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
_SETTINGS = 4  # the kind of the frame that an HTTP/2 server answers with
_FRAME_HEAD = 9  # bytes; the kind is the fourth
_OF_CLUSTER = "/ray.rpc.NodeInfoGcsService/GetClusterId"
_OF_CLIENTS = "/ray.rpc.RayletDriver/ClusterInfo"
_PING = b"\x08\x06"  # a ClusterInfoRequest that asks whether the server of clients lives
_VERSIONS = re.compile(r"Ray: (\S+)\s+Python: (\S+)")


def probe(address: str, *, default_port: int | None = None, hint: str = "") -> None:
    """Raises `WorkersUnavailable`, with a hint, unless something listens at ``address``."""
    parts = urlsplit(address if "://" in address else f"//{address}")
    try:
        where = (parts.hostname or "", parts.port or default_port or 0)
        socket.create_connection(where, timeout=PROBE_SECONDS).close()
    except (OSError, ValueError) as error:
        port = "10001 is the usual client port" if parts.scheme else "6379 is the usual port"
        usual = (
            f"check that its head runs and that this machine reaches it ({port}), or use 'local'"
        )
        raise WorkersUnavailable(
            f"{address=}: no Ray cluster answers there ({error}); {hint or usual}"
        ) from error


def prove(address: str) -> None:
    """Raises `WorkersUnavailable` unless a Ray of the kind that the address names answers there:
    its server of clients for "ray://host:port", the head's own for "host:port".
    """
    probe(address)
    if os.environ.get("RAY_USE_TLS", "").lower() in {"1", "true"}:
        return  # Ray's own certificates: what is asked here would not be understood
    where = address.removeprefix("ray://")
    usual = (
        "'host:6379' names the port of the head itself, 'ray://host:10001' that of its server of "
        "clients; 8265 is the dashboard's"
    )
    if not _speaks_http2(where):
        raise WorkersUnavailable(
            f"{address=}: something listens there that is no Ray; {usual}, or use 'local'"
        )
    is_client = address.startswith("ray://")
    if not _knows(where, _OF_CLIENTS if is_client else _OF_CLUSTER, _PING if is_client else b""):
        wanted = "server of clients" if is_client else "head"
        raise WorkersUnavailable(
            f"{address=}: what listens there is not the {wanted} of a Ray cluster; {usual}"
        )


def cause_of(address: str, error: Exception) -> str:
    """Why Ray could not be started ("local") or joined, and what would do, as a sentence."""
    done = "started" if address == "local" else "joined"
    for explain in (_versions, _token, _long_path, _no_home):
        why = explain(str(error), error)
        if why is not None:
            return f"{address=}: Ray could not be {done}: {why}"
    said = f"{type(error).__name__}: {first_sentence(error)}"
    return (
        f"{address=}: Ray could not be {done} ({said}); its logs are in "
        f"{_temporary() / 'ray' / 'session_latest' / 'logs'}"
    )


def first_sentence(error: Exception) -> str:
    """The first line of an exception's message, at most 300 characters, for a sentence of ours."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].strip()[:300]


def _versions(text: str, _error: Exception) -> str | None:
    found = _VERSIONS.findall(text)
    if "ersion mismatch" not in text or len(found) < 2:
        return None
    (theirs, their_python), (own, own_python) = found[:2]
    return (
        f"the cluster runs Ray {theirs} with Python {their_python}, this process Ray {own} with "
        f"Python {own_python}; install here what the cluster has (pip install ray=={theirs})"
    )


def _token(text: str, error: Exception) -> str | None:
    if not isinstance(error, ray.exceptions.AuthenticationError) and "auth token" not in text:
        return None
    return (
        f"the cluster asks for a token and refused ours ({first_sentence(error)}); set "
        "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN to what `ray get-auth-token` says on its head"
    )


def _long_path(text: str, _error: Exception) -> str | None:
    if "AF_UNIX path" not in text:
        return None
    name = next((name for name in ("RAY_TMPDIR", "TMPDIR") if os.environ.get(name)), "TMPDIR")
    return (
        f"its sockets lie below {_temporary()} (${name}), and a socket's path may have 107 "
        "characters; set RAY_TMPDIR to a shorter folder, such as /tmp"
    )


def _no_home(text: str, error: Exception) -> str | None:
    at_home = isinstance(error, OSError) and ".ray" in str(error.filename or "")
    if not at_home and "home directory" not in text:
        return None
    return (
        f"it keeps its token in $HOME/.ray, and that cannot be written ({first_sentence(error)}); "
        "set HOME to a folder of yours, or RAY_AUTH_TOKEN to any secret word"
    )


def _temporary() -> Path:
    return Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir())


def _speaks_http2(where: str) -> bool:
    """Whether what listens greets as an HTTP/2 server does, which every server of Ray's is."""
    parts = urlsplit(f"//{where}")
    with socket.create_connection((parts.hostname or "", parts.port or 0), PROBE_SECONDS) as link:
        link.settimeout(PROBE_SECONDS)
        try:
            link.sendall(_HTTP2_GREETING)
            head = b""
            while len(head) < _FRAME_HEAD:
                piece = link.recv(_FRAME_HEAD - len(head))
                if not piece:
                    return False
                head += piece
        except OSError:  # it hung up, or said nothing
            return False
    return head[3] == _SETTINGS


def _knows(where: str, method: str, request: bytes) -> bool:
    """Whether a server has a method of Ray's; True where nobody can ask (without grpcio)."""
    try:
        import grpc  # type: ignore[import-untyped]  # noqa: PLC0415  # of the extra `cluster`
    except ModuleNotFoundError:
        return True
    missing = {grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.UNAVAILABLE}
    missing.add(grpc.StatusCode.DEADLINE_EXCEEDED)
    options = (("grpc.enable_http_proxy", 0),)
    with grpc.insecure_channel(where, options=options) as channel:
        call: Callable[..., bytes] = channel.unary_unary(method)
        try:
            call(request, timeout=PROBE_SECONDS)
        except grpc.RpcError as error:  # one that asks for a token has the method too
            return error.code() not in missing
    return True
