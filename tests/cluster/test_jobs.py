"""Studies submitted to a real Ray cluster of several nodes, with token authentication."""

import json
import shutil
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

import s3search
from s3search.cluster.jobs import JobServer
from s3search.errors import InvalidConfig, WorkersUnavailable
from s3search.study.database.store import open_study
from tests.cluster.conftest import SECRET
from tests.cluster.ray_nodes import ROOT, RayCluster
from tests.support.studies import study_file

SLOW = "model.seconds=0.05"  # a network call: it leaves the machine to what starts and ends


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A cluster of a head and two nodes, the head's own database, and a study file."""

    cluster: RayCluster
    database: str
    study: Path

    def json(self, *arguments: object) -> Any:
        """What a command prints with --json, addressed to the cluster's job server."""
        told = self.cluster.run(*arguments, "--json", "--address", self.cluster.dashboard)
        assert (told.code, told.err) == (0, "")
        return json.loads(told.out)

    def submit(self, *options: object) -> str:
        sent = self.json("jobs", "submit", self.study, "--head-storage", *options)
        assert SECRET not in json.dumps(sent)
        return str(sent["job"])

    def n_evaluations(self) -> int:
        if not Path(self.database.removeprefix("sqlite:///")).exists():
            return 0
        engine = sa.create_engine(self.database)
        with engine.connect() as connection:
            if not sa.inspect(engine).has_table("s3search_evaluations"):
                return 0
            found = connection.execute(sa.text("select count(*) from s3search_evaluations"))
            return int(found.scalar_one())


@pytest.fixture
def site(cluster: RayCluster, head_storage: str, tmp_path: Path) -> Site:
    pytest.importorskip("aiohttp", reason="jobs need ray[default] (extra cluster)")
    cluster.resize(2)
    return Site(cluster=cluster, database=head_storage, study=study_file(tmp_path))


@pytest.mark.parametrize("address", ["head:8265", "ray://head:10001", "http://ann:pw@head:8265"])
def test_what_is_no_job_server_is_refused(address: str) -> None:
    with pytest.raises(InvalidConfig, match="http://head:8265"):
        JobServer(address)


def test_a_server_that_does_not_answer_is_told_with_the_way_to_it() -> None:
    with pytest.raises(WorkersUnavailable, match=r"Connection refused.*ssh -N -L 8265"):
        JobServer("http://127.0.0.1:1")


@pytest.mark.cluster
def test_a_stopped_study_is_resumed_by_submitting_it_again_and_ends(site: Site) -> None:
    two = ("--set", "cluster.workers=2")
    first = site.submit(*two, "--set", "search.evaluations=5000")
    deadline = time.monotonic() + 90
    while site.n_evaluations() < 3 and time.monotonic() < deadline:
        time.sleep(0.5)
    stopped = site.json("jobs", "stop", first)
    assert (stopped["state"], stopped["study"]) == ("stopped", "t")
    before = site.n_evaluations()
    assert before >= 3

    second = site.submit(*two)
    logs = site.json("jobs", "logs", second, "--follow")["logs"]
    ended = site.json("jobs", "status", second)
    assert (ended["state"], ended["exit_code"]) == ("succeeded", 0), logs
    assert ended["s3search"] == s3search.__version__
    assert {job["id"] for job in site.json("jobs", "status")["jobs"]} == {first, second}
    assert "final check on unseen noise: " in logs
    assert SECRET not in logs + json.dumps(ended)
    assert SECRET not in json.dumps(_all_that_ray_tells(site.cluster, second))

    with open_study(site.database, "t") as store:
        assert store.state == "done"
    with sa.create_engine(site.database).connect() as connection:
        rows = sa.text("select distinct worker from s3search_evaluations")
        workers = list(connection.execute(rows).scalars())
    assert len(workers) >= 2  # a node has room for one


def _all_that_ray_tells(cluster: RayCluster, job: str) -> Any:
    """The raw answer of the job server, runtime environment and all."""
    token = cluster.environment["RAY_AUTH_TOKEN"]
    request = urllib.request.Request(
        f"{cluster.dashboard}/api/jobs/{job}", headers={"Authorization": f"Bearer {token}"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        found = json.load(answer)
    assert "s3search launch" in found["entrypoint"]
    return found


@pytest.mark.cluster
def test_another_token_and_no_job_are_one_sentence_each(site: Site) -> None:
    address = ("--address", site.cluster.dashboard)
    refused = site.cluster.run_apart("jobs", "status", *address, RAY_AUTH_TOKEN="anothers-" * 5)
    assert refused.code == 2
    assert "the cluster refused us" in refused.err
    assert "RAY_AUTH_MODE=token" in refused.err
    missing = site.cluster.run("jobs", "logs", "nope", *address)
    assert missing.code == 2
    assert "there is no job 'nope'" in missing.err


@pytest.mark.cluster
def test_a_node_with_other_code_is_refused_by_a_launch_from_afar(
    site: Site, tmp_path: Path
) -> None:
    """``ray://``; three workers, so that one of them is on the third node; a study that is not at
    its end before that one has loaded.
    """
    shutil.copytree(ROOT / "s3search", tmp_path / "s3search")
    release = tmp_path / "s3search" / "evaluation" / "code_version.py"
    release.write_text(release.read_text().replace(s3search.__version__, "0.0.7"))
    site.cluster.join(tmp_path)
    told = site.cluster.run(
        *("launch", site.study, "--address", site.cluster.client),
        *(
            "--set",
            "cluster.workers=3",
            "--set",
            "search.evaluations=5000",
            "--set",
            SLOW,
            "--storage",
            f"sqlite:///{tmp_path / 'afar.db'}",
        ),
    )
    assert told.code == 2
    assert "runs s3search 0.0.7 (sources " in told.err
    assert f"the driver runs s3search {s3search.__version__} (sources " in told.err
