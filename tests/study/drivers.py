"""Drivers of a study that others come upon, for processes of their own."""

import os
import signal

from s3search.study.database import engine
from s3search.study.database.store import open_study


def hold(url: str) -> None:
    """Has the study until it is killed."""
    store = open_study(url, "t")
    store.hold()
    print("held", flush=True)  # noqa: T201  # whoever started it waits for that
    signal.pause()


def pause_within(url: str, idle_seconds: int, lock_seconds: int) -> None:
    """Stops within a transaction, under these limits of the database for it."""
    engine._IDLE_SECONDS, engine._LOCK_SECONDS = idle_seconds, lock_seconds
    store = open_study(url, "t")
    store.hold()
    with store._write():
        print("within", flush=True)  # noqa: T201
        os.kill(os.getpid(), signal.SIGSTOP)
