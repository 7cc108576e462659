"""Makes the data of this folder: studies run, killed, extended and vetoed by the code of one day.

It ran once, at commit 2ca5f63 of s3search (version 0.1.0), on purpose: what it left behind is what
that code wrote, and later code must read it and go on with it.  It need not run with later code.

    git worktree add /tmp/old 2ca5f63
    OMP_NUM_THREADS=1 PYTHONPATH=/tmp/old python tests/data/before_house/make.py

Every study is run twice from its file in ``studies``: to its end, which is what the databases and
records of finished studies hold, and in a process that ends itself without any goodbye (as
``kill -9`` does) once a stage of the search has reported so many results.
"""

# ruff: noqa: I001 (it sorts by which modules there are, and some of these are gone)

import gzip
import json
import os
import runpy
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import s3search
from s3search.launching import launch
from s3search.processes import edm, flow, vp_linear
from s3search.schedules import published
from s3search.study import mirror, veto_watch, vetoes
from s3search.study.config import load_config

HERE = Path(__file__).resolve().parent
STUDIES = HERE / "studies"
KILLED_CODE = 9

KILLS = {
    # database: (study, stage whose reports are counted, the report after which it dies)
    "s3-in-seeds": ("s3", "baselines", 5),
    "s3-in-evolution": ("s3", "search", 3),
    "s3-in-polish": ("s3", "polish", 2),
    "s3-two": ("s3-two", "polish", 5),
    "evolution": ("evolution", "search", 7),
    "random": ("random", "validation", 1),
    "usf": ("usf", "search", 6),
    "autodiffusion": ("autodiffusion", "baselines", 9),
    "tpe": ("tpe", "search", 9),
    "extended": ("extended", "search", 8),
    "extended-s3": ("extended-s3", "polish", 2),
    "vetoed-s3": ("vetoed-s3", "search", 9),
}
BEFORE_EXTENSION = {
    "extended": ("space.nfe=[4]", "search.evaluations=12"),
    "extended-s3": ("space.nfe=[4]", "search.evaluations=40"),
}
VETO_AT = {"vetoed-s3": ("search", 4)}  # the best found is vetoed once so many are measured
VETO_AFTERWARDS = ("vetoed",)  # the best found is vetoed, and the study launched again
POLISHED_OF = "s3"  # the study whose last polished schedule is exported in all formats
FORMATS = {
    "json": "schedule.json",
    "diffusers": "diffusers",
    "k-diffusion": "k_diffusion.py",
    "comfyui": "comfyui.py",
}


def main() -> None:
    """Makes everything anew."""
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        finished = folder / "finished.db"
        for file in sorted(STUDIES.glob("*.toml")):
            _finish(file, finished)
        _keep(finished, "finished")
        for kept, (study, stage, n) in KILLS.items():
            _kill(STUDIES / f"{study}.toml", folder / f"{kept}.db", stage, n)
            _keep(folder / f"{kept}.db", f"killed-{kept}")
        _record(finished, folder)
        _write_schedules(finished)
    _write("arithmetic.json", _arithmetic())


# -- runs ----------------------------------------------------------------------------------


def _finish(file: Path, database: Path) -> None:
    """The study of ``file`` from its beginning to its end."""
    study = file.stem
    if study in VETO_AT:
        assert _child("finish", file, database) == 0
    if study in BEFORE_EXTENSION:
        _launch(file, database, BEFORE_EXTENSION[study])
    _launch(file, database)
    if study in VETO_AFTERWARDS:
        found = _best_measured(database, study)
        _s3search("veto", study, found, "--reason", "blurred digits", *_at(database))
        _launch(file, database)


def _kill(file: Path, database: Path, stage: str, n: int) -> None:
    """The same, until the ``n``-th report of ``stage`` (of the extension, where there is one)."""
    if file.stem in BEFORE_EXTENSION:
        _launch(file, database, BEFORE_EXTENSION[file.stem])
    assert _child("kill", file, database, stage, str(n)) == KILLED_CODE
    assert Path(f"{database}-wal").exists()  # nobody said goodbye


def _launch(file: Path, database: Path, sets: Sequence[str] = ()) -> None:
    words = [word for each in sets for word in ("--set", each)]
    _s3search("launch", str(file), *words, *_at(database))


def _s3search(*words: str) -> str:
    """What the command line of the code on the path says."""
    command = [sys.executable, "-m", "s3search", *words]
    with TemporaryDirectory() as folder:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return done.stdout


def _at(database: Path) -> tuple[str, str]:
    return "--storage", f"sqlite:///{database}"


def _child(mode: str, file: Path, database: Path, *words: str) -> int:
    command = [sys.executable, str(Path(__file__)), mode, str(file), str(database), *words]
    return subprocess.run(command, check=False).returncode


def _in_child(mode: str, file: str, database: str, stage: str = "", n: str = "0") -> None:
    """Runs a study in this process, which a report may end."""
    config = load_config(file, [f"storage.url='sqlite:///{database}'"])
    name = config.study.name
    reports: list[Callable[[str], None]] = []
    if name in VETO_AT:  # the search is too quick here for anyone to be a second behind
        veto_watch.SECONDS, mirror._SECONDS = 0.0, 0.0
        reports.append(_Once(*VETO_AT[name], lambda: _veto(Path(database), name)))
    if mode == "kill":
        reports.append(_Once(stage, int(n), lambda: os._exit(KILLED_CODE)))

    def report(progress: Any) -> None:
        for each in reports:
            each(progress.stage)

    launch(config, report)


class _Once:
    """Acts at the ``n``-th report of a stage."""

    def __init__(self, stage: str, n: int, act: Callable[[], None]) -> None:
        self._stage, self._left, self._act = stage, n, act

    def __call__(self, stage: str) -> None:
        self._left -= stage == self._stage
        if stage == self._stage and self._left == 0:
            self._act()


def _veto(database: Path, study: str) -> None:
    vetoes.veto(f"sqlite:///{database}", study, _best_measured(database, study), "blurred digits")


# -- records -------------------------------------------------------------------------------


def _record(database: Path, folder: Path) -> None:
    """What the commands say of the finished studies, and what a killed one must come to."""
    for file in sorted(STUDIES.glob("*.toml")):
        study = file.stem
        page = folder / f"{study}.html"
        _s3search("report", study, "--no-samples", "-o", str(page), *_at(database))
        said = {
            command: json.loads(_s3search(command, study, *_at(database), "--json"))
            for command in ("status", "best", "compare")
        }
        best = {}
        for nfe in sorted({row["nfe"] for row in said["best"]["best"]}):
            exported = folder / f"{study}-{nfe}.json"
            words = ("--nfe", str(nfe), "-o", str(exported))
            _s3search("export", study, *words, *_at(database))
            best[str(nfe)] = json.loads(exported.read_text())
        numbers = runpy.run_path(str(HERE.parents[1] / "support/page_numbers.py"))["page_numbers"]
        _write(f"said/{study}.json", {**said, "report": numbers(page.read_text())})
        _write(f"outcomes/{study}.json", {**_rows(database, study), "best": best})


def _rows(database: Path, study: str) -> dict[str, Any]:
    """Proposals and evaluations of a study in their order, and its Optuna trials by number."""
    own = "study_id = (SELECT id FROM s3search_studies WHERE name = ?)"
    columns = "schedule_id, rung, n_images, noise_seed, state, value, standard_error"
    trials = (
        "SELECT CAST(a.value_json AS INTEGER), t.state, v.value FROM trials t "
        "JOIN studies s ON s.study_id = t.study_id "
        "JOIN trial_user_attributes a ON a.trial_id = t.trial_id AND a.key = 's3search:number' "
        "LEFT JOIN trial_values v ON v.trial_id = t.trial_id AND v.objective = 0 "
        "WHERE s.study_name = ? ORDER BY 1"
    )
    queries = {
        "proposals": "SELECT number, schedule_id, origin, parents FROM s3search_proposals "
        f"WHERE {own} ORDER BY number",
        "evaluations": f"SELECT {columns} FROM s3search_evaluations WHERE {own} ORDER BY id",
        "jobs": f"SELECT kind, digest, state FROM s3search_jobs WHERE {own} ORDER BY id",
        "trials": trials,
    }
    with closing(sqlite3.connect(database)) as connection:
        return {
            name: [list(row) for row in connection.execute(query, (study,))]
            for name, query in queries.items()
        }


def _best_measured(database: Path, study: str) -> str:
    """The best by held-out noise where there is any, and otherwise by the noise of the search."""
    query = (
        "SELECT e.schedule_id FROM s3search_evaluations e "
        "JOIN s3search_studies s ON s.id = e.study_id AND s.name = ? "
        "WHERE e.rung IN ('search', 'validation') "
        "ORDER BY e.rung != 'validation', e.value LIMIT 1"
    )
    with closing(sqlite3.connect(database)) as connection:
        return str(connection.execute(query, (study,)).fetchone()[0])


# -- schedules -----------------------------------------------------------------------------


def _write_schedules(database: Path) -> None:
    """Files of several kinds, and one of them in every format of `export`."""
    folder = HERE / "schedules"
    folder.mkdir(exist_ok=True)
    unipc = published.unipc(edm(), nfe=5, order=3, variant="bh2", spacing="logsnr")
    n_called = len(s3search.compile_plan(unipc).network_times)
    made = {
        "unipc": unipc,
        "unipc_vp": published.unipc(vp_linear(), nfe=6, order=2, variant="bh1", spacing="uniform"),
        "heun": published.heun(edm(), nfe=5),
        "singlestep": published.dpm_singlestep(edm(), nfe=6, order=3),
        "ipndm": published.ipndm(edm(), nfe=5),
        "deis": published.deis(edm(), nfe=5),
        "bdia": published.bdia(edm(), nfe=5),
        "flow_heun": published.flow_heun(flow(), nfe=5, shift=3.0),
        "dualfast": published.dualfast(
            published.dpmpp_2m(edm(), nfe=5), [0.0, 0.4, 0.3, 0.2, 0.1]
        ),
        "guided": published.with_guidance(unipc, [1.0, 2.0, 2.0, 1.5, 1.0]),
        "told": published.with_network_times(
            unipc, [0.99 * t for t in s3search.compile_plan(unipc).network_times][:n_called]
        ),
    }
    for name, schedule in made.items():
        schedule.save(folder / f"{name}.json")
    query = (
        "SELECT s.content FROM s3search_schedules s JOIN s3search_proposals p "
        "ON p.schedule_id = s.id JOIN s3search_studies o ON o.id = p.study_id AND o.name = ? "
        "WHERE p.origin LIKE 'polish%' ORDER BY p.number DESC LIMIT 1"
    )
    with closing(sqlite3.connect(database)) as connection:
        content = json.loads(connection.execute(query, (POLISHED_OF,)).fetchone()[0])
    _write("schedules/polished.json", content)
    study = str(STUDIES / "s3.toml")
    options = ("--n-images", "100", "--seed", "7", "--json")
    told = {}
    for file in sorted(folder.glob("*.json")):
        said = json.loads(_s3search("check", str(file), "--json"))
        told[file.stem] = {"id": said["id"], "nfe": said["nfe"]}
        if json.loads(file.read_text())["process"]["type"] == "edm" and file.stem != "guided":
            told[file.stem] |= _measured(_s3search("evaluate", str(file), study, *options))
    _write("schedules.json", told)
    for form, name in FORMATS.items():
        output = HERE / "exports" / name
        output.parent.mkdir(exist_ok=True)
        shutil.rmtree(output, ignore_errors=True)
        words = ("--schedule", str(folder / "polished.json"), "-o", str(output))
        _s3search("export", *words, "--format", form)
        made_files = sorted(output.iterdir()) if output.is_dir() else [output]
        for each in made_files:  # data, not code of this project
            if each.suffix == ".py":
                each.rename(each.with_name(f"{each.name}.txt"))


def _measured(said: str) -> dict[str, Any]:
    found = json.loads(said)
    return {key: found[key] for key in ("value", "standard_error", "network_calls")}


# -- files ---------------------------------------------------------------------------------


def _arithmetic() -> dict[str, str]:
    helper = runpy.run_path(str(HERE.parents[1] / "support/arithmetic.py"))
    return {"digest": helper["arithmetic_digest"]()}


def _keep(database: Path, name: str) -> None:
    """A copy, without the space that nothing uses, compressed."""
    copy = database.with_name(f"{name}.vacuumed.db")
    for tail in ("", "-wal", "-shm"):
        if (beside := Path(f"{database}{tail}")).exists():
            shutil.copy(beside, f"{copy}{tail}")
    with closing(sqlite3.connect(copy)) as connection:
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    packed = gzip.compress(copy.read_bytes(), mtime=0)
    (HERE / f"{name}.db.gz").write_bytes(packed)


def _write(name: str, content: Any) -> None:
    """A JSON file, a list of numbers or names to a line."""
    path = HERE / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:]:
        _in_child(*sys.argv[1:])
    else:
        main()
