"""The files that bring the dashboard up fit each other and the command that they run."""

import re
import shlex
import shutil
import stat
import subprocess
import warnings
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

import s3search
from s3search.cli import app
from s3search.show.dashboard import Login

ROOT = Path(s3search.__file__).parents[1]
FOLDER = ROOT / "dashboards"


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """With the defaults of its variables."""
    text = (FOLDER / "compose.yaml").read_text(encoding="utf-8")
    found: dict[str, Any] = yaml.safe_load(re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text))
    return found


@pytest.fixture(scope="module")
def command(compose: dict[str, Any]) -> list[str]:
    """The words of the dashboard's command."""
    shell, flag, script = shlex.split(compose["services"]["dashboard"]["command"])
    assert (shell, flag) == ("sh", "-c")
    _, _, served = script.replace("$$", "$").partition("exec ")
    return shlex.split(served)


def test_nothing_listens_beyond_this_machine_by_default(compose: dict[str, Any]) -> None:
    ports = [p for service in compose["services"].values() for p in service.get("ports", ())]
    assert len(ports) == 3
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert "ports" not in compose["services"]["dashboard"]


def test_the_command_is_one_that_there_is(command: list[str]) -> None:
    known = typer.main.get_command(app).commands["dashboard"]  # type: ignore[attr-defined]
    options = {name for each in known.params for name in each.opts}
    assert command[:2] == ["s3search", "dashboard"]
    given = {word for word in command if word.startswith("--")}
    assert given <= options
    assert "--writable" not in given  # the team looks
    assert command[command.index("--password-file") + 1] == "/run/secrets/logins"


def test_secrets_files_and_names_fit_each_other(
    compose: dict[str, Any], command: list[str]
) -> None:
    services = compose["services"]
    for service in services.values():
        assert set(service.get("secrets", ())) <= set(compose["secrets"])
        assert set(service["networks"]) <= set(compose["networks"])
        for volume in service.get("volumes", ()):
            source, *_ = volume.split(":")
            is_named = source in compose["volumes"]
            assert is_named or source == "./artifacts" or (FOLDER / source).is_file()
    artifacts = command[command.index("--artifacts") + 1]
    assert any(f":{artifacts}:ro" in volume for volume in services["dashboard"]["volumes"])
    port = command[command.index("--port") + 1]
    assert services["proxy"]["environment"]["S3SEARCH_DASHBOARD"] == f"dashboard:{port}"
    caddy = (FOLDER / "Caddyfile").read_text(encoding="utf-8")
    assert "reverse_proxy {$S3SEARCH_DASHBOARD:" in caddy
    hosts = {services[name]["environment"]["S3SEARCH_HOST"] for name in ("proxy", "dashboard")}
    assert hosts == {"localhost"}
    for line in (FOLDER / "Dockerfile").read_text(encoding="utf-8").splitlines():
        if line.startswith("COPY"):
            assert all((ROOT / source).exists() for source in line.split()[1:-1])


def test_the_script_makes_secrets_once_and_keeps_them(tmp_path: Path) -> None:
    script = shutil.copy(FOLDER / "launch.sh", tmp_path / "launch.sh")
    made = []
    for _ in range(2):
        subprocess.run(["sh", script, "--secrets-only"], check=True, cwd="/", capture_output=True)
        secrets = tmp_path / "secrets"
        made.append({file.name: file.read_bytes() for file in secrets.iterdir()})
        assert stat.S_IMODE(secrets.stat().st_mode) == 0o700
    assert made[0] == made[1]
    assert set(made[0]) == {"database_password", "logins"}
    password = made[0]["database_password"].decode()
    assert re.fullmatch(r"[\w-]{32}", password)  # it stands in a line of a pgpass file
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of a machine without htpasswd
        login = Login.from_file(tmp_path / "secrets" / "logins")
    assert len(login.digests) + len(login.hashes) == 1
