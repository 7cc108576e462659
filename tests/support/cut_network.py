"""A network between a program and its PostgreSQL server that is cut at the worst time."""

import socket
import threading
from contextlib import suppress

_BYTES = 65536


class CutNetwork:
    """Forwards a port of 127.0.0.1 to a Unix socket; a context manager.

    From `begin_to_cut` on, the answer to one of ``cut_every`` commits never arrives: the server
    has done it, and the connection is gone.
    """

    def __init__(self, unix_socket: str, cut_every: int) -> None:
        self._target, self._cut_every = unix_socket, cut_every
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = [self._listener]
        self._lock = threading.Lock()
        self._is_cutting = False
        self._n_commits = 0
        self.n_cuts = 0

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def __enter__(self) -> "CutNetwork":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._sockets:
            _cut(each)

    def begin_to_cut(self) -> None:
        self._is_cutting = True

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                program, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._target)
                self._sockets += [program, server]
                dropped = threading.Event()
                for pump in (self._ask, self._answer):
                    arguments = (program, server, dropped)
                    threading.Thread(target=pump, args=arguments, daemon=True).start()

    def _ask(
        self, program: socket.socket, server: socket.socket, dropped: threading.Event
    ) -> None:
        with suppress(OSError):
            while data := program.recv(_BYTES):
                if self._is_cutting and b"COMMIT" in data:
                    with self._lock:
                        self._n_commits += 1
                        if self._n_commits % self._cut_every == 0:
                            dropped.set()
                server.sendall(data)
        _cut(server)

    def _answer(
        self, program: socket.socket, server: socket.socket, dropped: threading.Event
    ) -> None:
        with suppress(OSError):
            while data := server.recv(_BYTES):
                if dropped.is_set():  # the server answers: it has committed
                    with self._lock:
                        self.n_cuts += 1
                    break
                program.sendall(data)
        _cut(program)
        _cut(server)


def _cut(each: socket.socket) -> None:
    with suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
    each.close()
