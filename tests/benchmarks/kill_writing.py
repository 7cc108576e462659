"""Upgrades, publications and exports that are killed at random moments:
`python -m tests.benchmarks.kill_writing N [--what upgrade publish export]`.

Each kill is a SIGKILL of a process of its own.  Afterwards what was there before is there, or all
that was to be, and the same command does what is left.
"""

import argparse
import gzip
import json
import os
import random
import shutil
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from s3search.formats.exporters import ExportRequest, export_schedule
from s3search.processes import edm, vp_discrete
from s3search.run.launching import launch
from s3search.schedules import published
from s3search.schedules.published.listed import LISTED_SOLVERS
from s3search.show.dashboard.publish import publish
from s3search.study.database.upkeep import upgrade
from tests.benchmarks.kill_upkeep import forked, killed
from tests.support.studies import FEWER, study_config

_OLD = Path(__file__).parents[1] / "data" / "before_house" / "killed-s3-two.db.gz"
_BACK = {
    "0005": ("alter table s3search_schedules drop column plan_key",),
    "0004": ("drop table s3search_extensions",),
    "0003": ("drop table s3search_leases",),
    "0002": ("alter table s3search_evaluations drop column replicates",),
}
"""What leads back to the schema of a version, from the one after it."""

_STATES = "study_system_attributes", "trial_user_attributes"
"""Tables that a publication writes into."""

State = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Victim:
    """Work that is killed: what sets its stage, what it does, and what is seen of it.

    ``stages`` are what may be there before.
    """

    stages: Mapping[str, Callable[[], None]]
    work: Callable[[], object]
    seen: Callable[[], State]
    is_piecewise: bool = False  # each thing is as before or as after, not all of them alike


def kills(victim: Victim, n: int, chance: random.Random) -> dict[str, int]:
    """Kills the work ``n`` times at each stage; how often it was done before the kill.

    Raises `AssertionError` where something is neither as before nor as after, or where the same
    work does not do the rest.
    """
    done: Counter[str] = Counter()
    for stage, set_stage in victim.stages.items():
        set_stage()
        before = victim.seen()
        victim.work()
        after = victim.seen()
        seconds = _seconds(set_stage, victim.work)
        assert after != before
        for _ in range(n):
            set_stage()
            killed(victim.work, chance.uniform(0.0, 1.2 * seconds))
            found = victim.seen()
            assert _is_right(found, before, after, victim.is_piecewise), (stage, found.keys())
            done[stage] += found == after
            if found != after:
                victim.work()
            assert victim.seen() == after, stage
    return dict(done)


def _seconds(set_stage: Callable[[], None], work: Callable[[], object]) -> float:
    """How long the work takes in a process of its own."""
    set_stage()
    began = time.monotonic()
    os.waitpid(forked(work), 0)
    return time.monotonic() - began


def _is_right(found: State, before: State, after: State, is_piecewise: bool) -> bool:
    if not is_piecewise:
        return found in (before, after)
    return found.keys() <= before.keys() | after.keys() and all(
        found.get(key) in (before.get(key), after.get(key)) for key in before.keys() | after.keys()
    )


# --- what is killed ---


def _rows(file: Path, tables: Iterable[str]) -> dict[str, Any]:
    """The columns and the rows of these tables; the database must be sound."""
    found = {}
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("pragma integrity_check").fetchall() == [("ok",)]
        for name in tables:
            rows = connection.execute(f'select * from "{name}"')
            found[name] = sorted(map(repr, rows.fetchall()))
            found[f"{name}, columns"] = [column[0] for column in rows.description]
    return found


def _put(content: bytes, file: Path) -> None:
    for each in (file, *(file.with_name(f"{file.name}-{end}") for end in ("wal", "shm"))):
        each.unlink(missing_ok=True)
    file.write_bytes(content)


def an_upgrade(folder: Path) -> Victim:
    """A database of an earlier schema, with Optuna's tables, which Optuna makes one by one, and
    without; only ours are all as before or all as after.
    """
    file = folder / "old.db"
    _put(gzip.decompress(_OLD.read_bytes()), file)
    contents, changes = {}, []
    for version, own in _BACK.items():
        changes += own
        number = f"update s3search_alembic_version set version_num = '{version}'"
        contents[f"from {version}"] = _changed(file, [*changes, number])
    optunas = [name for name in _names(file) if not name.startswith("s3search_")]
    drops = [f'drop table "{name}"' for name in optunas]
    contents["from 0002, without Optuna's tables"] = _changed(file, [*changes, number, *drops])
    return Victim(
        stages={name: lambda own=own: _put(own, file) for name, own in contents.items()},
        work=lambda: upgrade(f"sqlite:///{file}"),
        seen=lambda: _rows(file, [n for n in _names(file) if n.startswith("s3search_")]),
    )


def _names(file: Path) -> list[str]:
    """The tables of a database."""
    with closing(sqlite3.connect(file)) as connection:
        rows = connection.execute("select name from sqlite_master where type = 'table'")
        return [name for (name,) in rows if not name.startswith("sqlite_")]


def _changed(file: Path, changes: Iterable[str]) -> bytes:
    """The content of a copy of a database after these changes."""
    made = file.with_name("made")
    made.unlink(missing_ok=True)
    with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(made)) as target:
        source.backup(target)
        for change in changes:
            target.execute(change)
        target.commit()
        target.execute("pragma journal_mode=delete")
    return made.read_bytes()


def a_publication(folder: Path) -> Victim:
    """A finished study, published for the first time, with some of its files there, and again."""
    config = study_config(folder, FEWER)
    child = os.fork()  # what loads a model starts threads, and what has threads forks no more
    if child == 0:
        launch(config, lambda _: None)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    file = folder / "study.db"
    artifacts = folder / "study.db.artifacts"
    contents = {}
    for name, change in (
        ("for the first time", "delete from study_system_attributes where key like 'dashboard:%'"),
        ("again", "update study_system_attributes set value_json = '\"old\"' "
                  "where key like 'dashboard:%' and key not like '%note_ver'"),
    ):  # fmt: skip
        unmarked = "delete from trial_user_attributes where key = 'exported'"
        contents[name] = _changed(file, (change, unmarked))

    def seen() -> State:
        found = _rows(file, _STATES)
        listed = [row for row in found["study_system_attributes"] if "artifacts:" in row]
        there = {each.name for each in artifacts.glob("[!.]*")} if artifacts.is_dir() else set()
        wanted = {row.split("artifacts:")[1].split(":")[1][:36] for row in listed}
        if any('"old"' in row for row in listed):
            wanted = set()
        assert wanted <= there, "an artifact is listed and not there"
        return {name: sorted(r.partition(",")[2] for r in rows) for name, rows in found.items()}

    def set_stage(content: bytes) -> None:
        _put(content, file)
        for each in sorted(artifacts.glob("*"))[:2]:  # drawing all of them takes seconds
            each.unlink()

    return Victim(
        stages={name: lambda own=own: set_stage(own) for name, own in contents.items()},
        work=lambda: publish(f"sqlite:///{file}", "t"),
        seen=seen,
    )


def an_export(folder: Path, form: str) -> Victim:
    """A schedule, exported to where nothing is and over another one; see `an_export_over`."""
    output = folder / form

    def seen() -> State:
        return _files(output)

    def clean() -> None:
        for each in folder.glob(f"*{form}*"):
            shutil.rmtree(each) if each.is_dir() else each.unlink()

    def there() -> None:
        clean()
        _export(form, 4, output)

    return Victim(
        stages={"new": clean} if form == "diffusers" else {"new": clean, "over another": there},
        work=lambda: _export(form, 6, output),
        seen=seen,
    )


def an_export_into_a_folder(folder: Path) -> Victim:
    """A folder for diffusers that is there: each of its files is of one export, whole."""
    output = folder / "there"

    def there() -> None:
        shutil.rmtree(output, ignore_errors=True)
        _export("diffusers", 4, output)
        (output / "mine.txt").write_text("not ours")

    return Victim(
        stages={"over another": there},
        work=lambda: _export("diffusers", 6, output),
        seen=lambda: _files(output),
        is_piecewise=True,
    )


def _export(form: str, nfe: int, output: Path) -> None:
    process = vp_discrete("scaled_linear", beta_start=0.00085, beta_end=0.012)
    schedule = published.dpmpp_2m(process, nfe=nfe)
    if form == "sigmas":
        schedule = LISTED_SOLVERS["euler"].on(edm(), [80.0 / 2**i for i in range(nfe)])
    export_schedule(form, ExportRequest(schedule=schedule, output=output))


def _files(output: Path) -> dict[str, bytes]:
    """The files at a path, or below it, but for those that are being written."""
    if output.is_file():
        return {"": output.read_bytes()}
    found = (each for each in output.rglob("*") if each.is_file())
    own = {each.relative_to(output): each for each in found}
    return {
        str(name): file.read_bytes()
        for name, file in own.items()
        if not any(part.startswith(".") for part in name.parts)
    }


FORMS = ("json", "k-diffusion", "comfyui", "sigmas", "diffusers")


def victims(folder: Path, what: str) -> dict[str, Victim]:
    """All that is killed of an upgrade, a publication or an export."""
    folder.mkdir(exist_ok=True)
    match what:
        case "upgrade":
            return {"upgrade": an_upgrade(folder)}
        case "publish":
            return {"publish": a_publication(folder)}
    found = {f"export {form}": an_export(folder, form) for form in FORMS}
    return {**found, "export into a folder": an_export_into_a_folder(folder)}


def main() -> None:
    """One line of JSON for each that was killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("n", type=int, help="kills of each, at each stage")
    parser.add_argument(
        "--what", nargs="+", default=["upgrade", "publish", "export"], metavar="COMMAND"
    )
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    chance = random.Random(asked.seed)
    with TemporaryDirectory() as folder:
        for what in asked.what:
            for name, victim in victims(Path(folder) / what, what).items():
                done = kills(victim, asked.n, chance)
                stages = len(victim.stages)
                print(
                    json.dumps({"killed": name, "kills": asked.n * stages, "done": done}),
                    flush=True,
                )


if __name__ == "__main__":
    main()
