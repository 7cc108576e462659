"""Workers in other processes load pipelines, and share one folder of embeddings."""

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip(
    "diffusers", reason="diffusers is not installed: pip install diffusers transformers"
)
pytest.importorskip(
    "transformers", reason="transformers is not installed: pip install diffusers transformers"
)

from s3search.errors import S3SearchError
from s3search.run.launching import launch
from s3search.schedules.schedule import Schedule
from tests.suites.pool_suite import start_ray
from tests.support import pipelines

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.filterwarnings("ignore::FutureWarning:diffusers.*", "ignore::DeprecationWarning"),
]


@pytest.fixture(scope="module", autouse=True)
def _running_ray() -> None:
    start_ray()


ONE = {"address": "local", "workers": 1}


@pytest.mark.parametrize("kind", ["ddpm", "stable_diffusion"])
def test_ray_workers_find_what_one_process_finds(tmp_path: Path, kind: str) -> None:
    folder = getattr(pipelines, kind)(tmp_path / "pipe")
    model: dict[str, Any] = {"path": str(folder)}
    if kind != "ddpm":
        model |= {"prompts": ["a", "b c", "d", "e"], "held_out": 0, "cache": str(tmp_path)}
        model |= {"height": 16, "width": 16}
    size = 8 if kind == "ddpm" else 16
    found = {}
    n_on_ray = 1 if kind == "ddpm" else 2  # which share the folder of embeddings
    for address, workers in {"local": n_on_ray, "inline": 1}.items():
        own = tmp_path / address
        own.mkdir()
        config = pipelines.study(
            own,
            model,
            reference={"images": "tests.support.pipelines:references", "size": size},
            cluster={"address": address, "workers": workers},
        )
        evaluator = pipelines.searched(config, own / "schedule.json")
        found[address] = Schedule.load(own / "schedule.json")
        assert evaluator.model_fingerprint == found[address].provenance["model_fingerprint"]
    assert found["inline"].id == found["local"].id
    values = [schedule.provenance["held_out"]["value"] for schedule in found.values()]
    assert values[0] == pytest.approx(values[1], rel=1e-4)


def test_a_wrong_path_stops_the_launch_with_its_own_words(tmp_path: Path) -> None:
    config = pipelines.study(tmp_path, {"path": "./nowhere"}, cluster=ONE)
    with pytest.raises(S3SearchError, match=r"there is no folder './nowhere'"):
        launch(config, lambda _: None)
    assert not (tmp_path / "study.db").exists()
