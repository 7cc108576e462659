"""Jobs on a Ray cluster: a shell command that the head runs, with a folder that travels to it.

What Ray 2.60 does, measured, and what follows:

- The command runs on the head with the PATH and the environment that ``ray start`` had there, in
  the folder sent along, and $RAY_ADDRESS names the cluster, so that "auto" finds it.
- Command, metadata and environment variables of a job are shown as they are to whoever reaches
  the server (the browser's view hides variables, Python and REST do not), and the command stands
  in the log: no secret may be in any of them, and no variable is set here but Ray's own.
- $RAY_API_SERVER_ADDRESS and $RAY_ADDRESS win over the address given: they are hidden from it.
- A stopped job has 3 s between SIGTERM and SIGKILL; a search takes longer to leave its workers.
- Ray's client needs the token like every node, and $RAY_AUTH_MODE=token beside it.
"""

import asyncio
import contextlib
import logging
import os
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import ray.exceptions

from s3search.cluster.ray.reaching import first_sentence, probe
from s3search.errors import InvalidConfig, WorkersUnavailable
from s3search.evaluation.code_version import CODE_VERSION

STOP_SECONDS = 60  # that a stopped search has to close its study and leave its workers
_POLL_SECONDS = 0.5
_CHATTY = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)
_ENDS = ("stopped", "succeeded", "failed")
_STUDY, _RELEASE = "s3search_study", "s3search_version"  # keys of a job's metadata


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One job as the cluster knows it.

    ``state`` is pending, running, stopped, succeeded or failed; ``study`` and ``s3search`` are
    None of a job that was not submitted by s3search; times are UTC.
    """

    id: str
    state: str
    study: str | None
    s3search: str | None
    message: str
    exit_code: int | None
    started: datetime | None
    ended: datetime | None

    @property
    def is_over(self) -> bool:
        """Whether the job has ended, in whatever way."""
        return self.state in _ENDS


class JobServer:
    """The job server of a cluster, at the address of its dashboard, ``http://head:8265``.

    Raises `InvalidConfig` for an address or a job that is none, `WorkersUnavailable` where no
    server answers or the token is not its own.
    """

    def __init__(self, address: str) -> None:
        if re.fullmatch(r"https?://[^/@\s]+/?", address) is None:
            raise InvalidConfig(
                f"{address=} is no job server; give the head's dashboard, http://head:8265"
            )
        self.address = address.rstrip("/")
        probe(self.address, default_port=80 if address.startswith("http:") else 443, hint=_HINT)
        with self._explained(), _without_other_addresses():
            self._client: Any = _ray_jobs().JobSubmissionClient(self.address)

    def submit(self, command: str, *, folder: Path, study: str) -> str:
        """Starts ``command`` in a copy of ``folder`` on the head; the id of the job."""
        name = re.sub(r"[^a-z0-9]+", "-", study.lower()).strip("-")[:40]
        environment = {
            "working_dir": str(folder),
            "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)},
        }
        with self._explained():
            job: str = self._client.submit_job(
                entrypoint=command,
                submission_id=f"{name}-{secrets.token_hex(4)}".lstrip("-"),
                runtime_env=environment,
                metadata={_STUDY: study, _RELEASE: CODE_VERSION},
            )
        return job

    def job(self, job_id: str) -> Job:
        """What became of one job."""
        with self._explained(job_id):
            return _job(self._client.get_job_info(job_id))

    def jobs(self) -> list[Job]:
        """Every search that was submitted to the cluster, the first one first."""
        with self._explained():
            known = [_job(found) for found in self._client.list_jobs() if found.submission_id]
        ours = [job for job in known if job.study is not None]
        return sorted(ours, key=lambda job: (job.started is None, job.started, job.id))

    def logs(self, job_id: str) -> str:
        """All that a job has printed so far."""
        with self._explained(job_id):
            text: str = self._client.get_job_logs(job_id)
        return text

    def follow(self, job_id: str) -> Iterator[str]:
        """What a job has printed and prints, until it is over."""
        self.job(job_id)
        tail = self._client.tail_job_logs(job_id)
        with asyncio.Runner() as runner:
            while True:
                with self._explained(job_id):
                    piece = runner.run(_next(tail))
                if piece is None:
                    return
                yield piece

    def stop(self, job_id: str) -> Job:
        """Interrupts a job, as Ctrl-C would, and waits until it is over; a minute at most."""
        with self._explained(job_id):
            self._client.stop_job(job_id)
        deadline = time.monotonic() + STOP_SECONDS + 10
        while not (job := self.job(job_id)).is_over and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        return job

    @contextlib.contextmanager
    def _explained(self, job_id: str | None = None) -> Iterator[None]:
        """Turns what Ray's client raises into a sentence of ours."""
        address = self.address
        try:
            yield
        except ray.exceptions.AuthenticationError as error:
            raise WorkersUnavailable(
                f"{address=}: the cluster refused us ({first_sentence(error)}); set "
                "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH) as on its nodes"
            ) from error
        except OSError as error:  # ConnectionError, and all of requests' own
            raise WorkersUnavailable(
                f"{address=}: no job server answers there ({first_sentence(error)}); {_HINT}"
            ) from error
        except (RuntimeError, ValueError) as error:
            if job_id is not None and "status code 404" in str(error):
                raise InvalidConfig(
                    f"there is no job {job_id!r} at {address}; `s3search jobs status` lists them"
                ) from error
            raise WorkersUnavailable(f"{address=}: {first_sentence(error)}") from error


_HINT = (
    "the address is that of the head's dashboard, port 8265, which listens on the head's loopback "
    "only: run this on the head or through `ssh -N -L 8265:127.0.0.1:8265 head`, and start Ray "
    "there with 'ray[client,default]' installed"
)


def _ray_jobs() -> ModuleType:
    try:
        import aiohttp  # noqa: F401, PLC0415  without it Ray's import works and its client does not
        import ray.job_submission  # noqa: PLC0415  only needed here, and half a second
    except ImportError as error:
        raise InvalidConfig(
            f"jobs need Ray's client ({error}); pip install 'ray[client,default]'"
        ) from error
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    return ray.job_submission


@contextlib.contextmanager
def _without_other_addresses() -> Iterator[None]:
    names = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
    kept = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


async def _next(tail: Any) -> str | None:
    return await anext(tail, None)


def _job(details: Any) -> Job:
    metadata: Mapping[str, str] = details.metadata or {}
    return Job(
        id=details.submission_id or details.job_id,
        state=str(details.status.value).lower(),
        study=metadata.get(_STUDY),
        s3search=metadata.get(_RELEASE),
        message=details.message or "",
        exit_code=details.driver_exit_code,
        started=_time(details.start_time),
        ended=_time(details.end_time),
    )


def _time(milliseconds: int | None) -> datetime | None:
    return None if not milliseconds else datetime.fromtimestamp(milliseconds / 1000, UTC)
