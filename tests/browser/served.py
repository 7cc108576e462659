"""`s3search dashboard` in a process of its own, as a user starts it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import s3search

_ROOT = Path(s3search.__file__).parents[1]


@contextmanager
def dashboard(url: str, *options: str) -> Iterator[str]:
    """Serves a database on a free port; the address that all paths begin with."""
    with subprocess.Popen(
        [sys.executable, "-m", "s3search", "dashboard", "--port", "0", "--json", *options],
        env={**os.environ, "PYTHONPATH": str(_ROOT), "S3SEARCH_STORAGE": url},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            said = ""
            for line in process.stdout:
                said += line
                if line == "}\n":
                    break
            yield str(json.loads(said)["url"]).removesuffix("/dashboard")
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(30)
