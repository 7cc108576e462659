"""The files that bring workers up: syntax, the options they give, the versions they pin.

What needs a cluster of its own (Slurm, ssh, Kubernetes, Docker) was tried by hand;
workers/README.md says how far.
"""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer.main
import yaml

import s3search
from s3search.cli import app
from tests.support.studies import study_config

ROOT = Path(s3search.__file__).parents[1]
WORKERS = ROOT / "workers"
SCRIPTS = sorted([*WORKERS.glob("*.sh"), *WORKERS.glob("*.sbatch")])


def text(name: str) -> str:
    return (WORKERS / name).read_text(encoding="utf-8")


def launch_options(command: str) -> dict[str, Any]:
    """The options of `s3search launch` in a shell command, after a check that there are such."""
    words = shlex.split(command)
    assert words[:2] == ["s3search", "launch"]
    parser = typer.main.get_command(app).commands["launch"]  # type: ignore[attr-defined]  # a group
    values = parser.make_context("launch", words[2:], resilient_parsing=True).params
    return {key: value for key, value in values.items() if value is not None}


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_the_scripts_are_valid_bash(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize("arguments", [["head.sh"], ["join.sh", "head:6379"]], ids=lambda a: a[0])
def test_no_node_starts_without_a_token(arguments: list[str]) -> None:
    script, *rest = arguments
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    told = subprocess.run(
        ["bash", WORKERS / script, *rest],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 2
    assert "set RAY_AUTH_MODE=token" in told.stderr


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_a_node_says_where_no_head_answers() -> None:
    told = subprocess.run(
        ["bash", WORKERS / "join.sh", "127.0.0.1:1"],
        env=os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "of-this-test"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert told.returncode == 1
    assert "nothing answers at 127.0.0.1:1; start the head first" in told.stderr


def test_the_readme_names_every_file_of_the_folder() -> None:
    readme = text("README.md")
    names = [path.name for path in WORKERS.iterdir() if path.name != "README.md"]
    assert not [name for name in names if f"`{name}`" not in readme]


def test_all_files_pin_the_same_versions() -> None:
    pins: dict[str, set[str]] = {"torch": set(), "ray": set()}
    for name in ("Dockerfile", "cluster.yaml", "rayjob.yaml", "README.md"):
        pins["torch"] |= set(re.findall(r"torch==([\d.]+)", text(name)))
        ray = r"(?:ray\[client,default\]==|ARG RAY=|rayVersion: \")(\d[\d.]+)"
        pins["ray"] |= set(re.findall(ray, text(name)))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert pins["torch"] == set(re.findall(r"torch==([\d.]+)", makefile))
    assert len(pins["ray"]) == 1


def test_what_the_image_copies_is_there_and_is_what_a_wheel_needs() -> None:
    copied = [
        name
        for line in re.findall(r"^COPY (.+)$", text("Dockerfile"), re.MULTILINE)
        for name in line.split()[:-1]
    ]
    assert all((ROOT / name).exists() for name in copied)
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert {"pyproject.toml", "s3search", "search_spaces", "README.md"} <= set(copied)
    assert 'readme = "README.md"' in project


def test_the_cluster_file_is_one_for_rays_launcher() -> None:
    """Ray's own schema, and what Ray fills in."""
    autoscaler = pytest.importorskip("ray.autoscaler._private.util")
    config = yaml.safe_load(text("cluster.yaml"))
    prepared = autoscaler.prepare_config(dict(config))
    autoscaler.validate_config(prepared)
    for commands in ("head_start_ray_commands", "worker_start_ray_commands"):
        start = prepared[commands][-1]
        assert "RAY_AUTH_MODE=token" in start
        assert "ray start" in start
    with pytest.raises(jsonschema.ValidationError, match="setup_comands"):
        autoscaler.validate_config(autoscaler.prepare_config(config | {"setup_comands": []}))


def _table(optional: str = "", **fields: Any) -> dict[str, Any]:
    """A schema of exactly these fields; ``optional`` names those that may be left out."""
    return {
        "type": "object",
        "properties": fields,
        "required": sorted(set(fields) - set(optional.split())),
        "additionalProperties": False,
    }


def _list_of(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": item, "minItems": 1}


_WORD, _NUMBER = {"type": "string"}, {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}
_WORDS = {"type": "object", "additionalProperties": _WORD}
_PORT = {"type": "integer", "minimum": 1, "maximum": 65535}
_NAME = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "maxLength": 63}
_QUANTITIES = {
    "type": "object",
    "additionalProperties": {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(m|[kMGT]i?)?$"},
}
_CONTAINER = _table(
    "env ports volumeMounts",
    name=_NAME,
    image=_WORD,
    env=_list_of(_table(name=_WORD, valueFrom=_table(secretKeyRef=_table(name=_NAME, key=_WORD)))),
    ports=_list_of(_table(name=_NAME, containerPort=_PORT)),
    resources=_table(requests=_QUANTITIES, limits=_QUANTITIES),
    volumeMounts=_list_of(_table(name=_NAME, mountPath=_WORD, readOnly={"type": "boolean"})),
)
_PODS = {
    "rayStartParams": _WORDS,
    "template": _table(
        spec=_table(
            "volumes terminationGracePeriodSeconds",
            containers=_list_of(_CONTAINER),
            volumes=_list_of(_table(name=_NAME, configMap=_table(name=_NAME))),
            terminationGracePeriodSeconds=_NUMBER,
        )
    ),
}
_GROUP = _table(
    **_PODS, groupName=_NAME, replicas=_NUMBER, minReplicas=_NUMBER, maxReplicas=_NUMBER
)
RAY_JOB = _table(
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayJob"},
    metadata=_table(name=_NAME | {"maxLength": 47}),  # the operator's own limit
    spec=_table(
        entrypoint=_WORD,
        runtimeEnvYAML=_WORD,
        backoffLimit=_NUMBER,
        shutdownAfterJobFinishes={"type": "boolean"},
        ttlSecondsAfterFinished=_NUMBER,
        rayClusterSpec=_table(
            rayVersion=_WORD,
            authOptions=_table(mode={"enum": ["token", "disabled"]}),
            headGroupSpec=_table(**_PODS),
            workerGroupSpecs=_list_of(_GROUP),
        ),
    ),
)
"""The fields of KubeRay's RayJob that workers/rayjob.yaml uses, typed as in KubeRay's sources
(rayjob_types.go, raycluster_types.go) and the reference of ray.io/v1.
"""


def test_the_kubernetes_job_has_kuberays_fields_and_its_parts_agree(tmp_path: Path) -> None:
    job = yaml.safe_load(text("rayjob.yaml"))
    jsonschema.validate(job, RAY_JOB)
    cluster = job["spec"]["rayClusterSpec"]
    head_pod = cluster["headGroupSpec"]["template"]["spec"]
    (group,) = cluster["workerGroupSpecs"]
    (head,) = head_pod["containers"]
    (worker,) = group["template"]["spec"]["containers"]
    assert cluster["authOptions"]["mode"] == "token"
    assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    assert head["image"] == worker["image"]

    options = launch_options(job["spec"]["entrypoint"])
    assert options["address"] == "auto"
    config = study_config(tmp_path, *options["sets"]).cluster
    gpus = int(worker["resources"]["limits"]["nvidia.com/gpu"])
    assert config.workers * config.gpus_per_worker == group["maxReplicas"] * gpus
    assert config.min_workers == 1  # the search begins with the first pod
    (volume,), (mount,) = head_pod["volumes"], head["volumeMounts"]
    assert volume["name"] == mount["name"]
    assert Path(options["study"]).parent == Path(mount["mountPath"])
    environment = yaml.safe_load(job["spec"]["runtimeEnvYAML"])["env_vars"]
    assert all(isinstance(value, str) for value in environment.values())
    (storage,) = head["env"]
    assert storage["name"] == "S3SEARCH_STORAGE"  # from a secret, says the schema


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec.backofLimit", 3),
        ("spec.backoffLimit", "3"),
        ("spec.rayClusterSpec.authOptions.mode", "tokens"),
        ("spec.rayClusterSpec.headGroupSpec.rayStartParams.num-cpus", 0),
        ("spec.rayClusterSpec.headGroupSpec.template.spec.containers.0.imagePolicy", "Always"),
        ("spec.rayClusterSpec.workerGroupSpecs.0.maxReplicas", 2**31),
        ("spec.rayClusterSpec.workerGroupSpecs.0.template.spec.containers.0.name", "ray worker"),
        (
            "spec.rayClusterSpec.workerGroupSpecs.0.template.spec.containers.0.resources.limits.cpu",
            "four",
        ),
    ],
)
def test_a_slip_in_the_kubernetes_job_would_be_found(path: str, value: object) -> None:
    job = yaml.safe_load(text("rayjob.yaml"))
    *parents, last = path.split(".")
    target = job
    for parent in parents:
        target = target[int(parent) if parent.isdigit() else parent]
    target[last] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(job, RAY_JOB)


def test_the_slurm_template_gives_launch_options_that_it_has() -> None:
    script = text("slurm.sbatch")
    (command,) = re.findall(r"^(s3search launch .*) &$", script, re.MULTILINE)
    assert "address" in launch_options(command)
    assert {"--requeue", "--signal=B:USR1@120"} <= set(re.findall(r"^#SBATCH (\S+)", script, re.M))
