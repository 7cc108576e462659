"""The command line: parses, calls, prints.  Exit codes: 0 done, 1 failed, 2 bad input, 130
interrupted.
"""

import json
import os
import shlex
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from s3search.errors import EvaluationFailed, InvalidConfig, InvalidSchedule, S3SearchError
from s3search.files import neighbour, write_text
from s3search.schedules.schedule import Schedule, json_schema

app = typer.Typer(
    name="s3search",
    help="Find the solver schedule that gives a diffusion or flow model "
    "its best images at few network calls.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

_TRAINING_LINE = 500  # iterations between two lines

_OUT = Console()
_ERR = Console(stderr=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]
Storage = Annotated[
    str | None,
    typer.Option(
        "--storage",
        help="Database URL; else $S3SEARCH_STORAGE, else sqlite:///s3search.db.",
    ),
]
StudyName = Annotated[
    str, typer.Argument(metavar="STUDY", help="Name of a study in the database.")
]
StudyFile = Annotated[Path, typer.Argument(metavar="STUDY.toml", help="A study file.")]
ScheduleFile = Annotated[Path, typer.Argument(metavar="SCHEDULE.json", help="A schedule file.")]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="TABLE.KEY=VALUE", help="Override a value of the study file."),
]
Address = Annotated[
    str | None, typer.Option("--address", help="inline, local, auto or ray://host:port.")
]


@app.command()
def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for what is made.")
    ] = Path("s3search-demo"),
    quick: Annotated[
        bool, typer.Option("--quick", help="A smoke test; its numbers mean little.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Search five-call schedules for the embedded digits model; three minutes on two cores."""
    from s3search import demo as demonstration
    from s3search.study.config import load_config

    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidConfig(f"cannot make the folder {output}: {error.strerror}") from error
    study = output.resolve() / "study.toml"
    write_text(study, demonstration.study_text(output.resolve(), quick=quick))
    config = load_config(study)
    _launch(config, quiet=as_json)
    paths = demonstration.write_pictures(config, output)
    result = _comparison(config.storage.url, config.study.name)
    if as_json:
        _print_json({**result, "files": [str(path) for path in (study, *paths)]})
        return
    _print_comparison(config.storage.url, config.study.name)
    for path in (study, *paths):
        _OUT.print(f"wrote {path}", highlight=False, soft_wrap=True)
    _OUT.print(
        f"next: s3search dashboard --storage {config.storage.url}", highlight=False, soft_wrap=True
    )


@app.command()
def launch(
    study: StudyFile,
    storage: Storage = None,
    address: Address = None,
    sets: Sets = None,
    as_json: AsJson = False,
) -> None:
    """Create or resume the study of a study file and run it to its end."""
    config = _config(study, storage, address, sets)
    _launch(config, quiet=as_json)
    if as_json:
        _print_json(_comparison(config.storage.url, config.study.name))
    else:
        _print_comparison(config.storage.url, config.study.name)


@app.command()
def status(
    study: Annotated[str | None, typer.Argument(metavar="[STUDY]")] = None,
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """How far a study is (all studies without a name), what it found and what it cost."""
    from s3search.study.store import study_names
    from s3search.terminal import status_lines

    url = _storage(storage)
    rows = [_status(url, name) for name in ([study] if study else study_names(url))]
    if as_json:
        _print_json(rows[0] if study else {"studies": rows})
    else:
        for line in status_lines(rows):
            _OUT.print(line, highlight=False, soft_wrap=True)


@app.command()
def best(
    study: StudyName,
    nfe: Annotated[int | None, typer.Option("--nfe", help="Only this number of calls.")] = None,
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """The best schedule of each NFE, chosen on held-out noise, and the search's optimism."""
    from s3search.study.export import best_schedule
    from s3search.study.store import open_study

    rows = []
    with open_study(_storage(storage), study) as store:
        for calls in [nfe] if nfe is not None else store.config.space.nfe:
            schedule, _ = best_schedule(store, calls)
            rows.append({"schedule_id": schedule.id, "nfe": schedule.nfe, **schedule.provenance})
    if as_json:
        _print_json({"study": study, "best": rows})
        return
    from s3search.terminal import best_lines

    for line in best_lines(rows):
        _OUT.print(line, highlight=False, soft_wrap=True)


@app.command()
def compare(study: StudyName, storage: Storage = None, as_json: AsJson = False) -> None:
    """The search result against every published solver at its best spacing, on the same held-out
    noise.
    """
    url = _storage(storage)
    if as_json:
        _print_json(_comparison(url, study))
    else:
        _print_comparison(url, study)


@app.command()
def evaluate(
    schedule: ScheduleFile,
    study: StudyFile,
    n_images: Annotated[int, typer.Option("--n-images", min=2, help="Images to make.")] = 10_000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Noise seed.")] = 1,
    address: Address = "inline",
    sets: Sets = None,
    as_json: AsJson = False,
) -> None:
    """Measure one schedule with a study file's model, metric and reference; nothing is stored."""
    from dataclasses import asdict

    from s3search.driver import describe
    from s3search.driver import evaluate as measure
    from s3search.evaluation.record import EvaluationRequest, Rung, statistics_problem
    from s3search.launching import workers
    from s3search.terminal import evaluation_line

    loaded = Schedule.load(schedule)
    config = _config(study, None, address, sets)
    request = EvaluationRequest(
        schedule=loaded, rung=Rung.USER, n_images=n_images, noise_seed=seed
    )
    with workers(config) as pool:
        description = describe(pool)
        process = description.process
        if not loaded.process.same_levels(process):
            raise InvalidSchedule(
                f"{schedule}: process: this is a schedule for {loaded.process!r}, "
                f"the model of {study} has {process!r}"
            )
        problem = statistics_problem(loaded, description.ems)
        if problem is not None:
            raise InvalidSchedule(f"{schedule}: {problem}")
        evaluation = measure(pool, request)
    if as_json:
        _print_json(asdict(evaluation) | {"network_calls": evaluation.network_calls})
    else:
        _OUT.print(evaluation_line(evaluation), highlight=False, soft_wrap=True)


@app.command()
def export(
    study: StudyName,
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.")],
    nfe: Annotated[int | None, typer.Option("--nfe", help="Which number of calls.")] = None,
    form: Annotated[str, typer.Option("--format", help="json")] = "json",
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """Write the best schedule of a study, with its compiled table and provenance."""
    from s3search.evaluation.evaluator import load_ems
    from s3search.study.export import best_schedule, save_export
    from s3search.study.store import open_study

    if form != "json":
        raise InvalidConfig(f"--format: this release writes 'json', asked for {form!r}")
    with open_study(_storage(storage), study) as store:
        schedule, chosen = best_schedule(store, nfe)
        named = store.config.statistics.ems
    _writable(output)
    uses_ems = schedule.statistics is not None and named is not None
    save_export(schedule, output, load_ems(str(named)) if uses_ems else None)
    if as_json:
        _print_json({"file": str(output), "schedule_id": schedule.id, **schedule.provenance})
    else:
        _OUT.print(
            f"wrote {output}: NFE {schedule.nfe}, {chosen.value:.4f} on held-out noise",
            highlight=False,
            soft_wrap=True,
        )


@app.command()
def show(
    schedule: ScheduleFile,
    png: Annotated[Path | None, typer.Option("--png", help="Also draw it to this file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Draw a schedule: noise levels and the choice made at each step."""
    from s3search.pictures import draw_schedule, terminal_drawing

    loaded = Schedule.load(schedule)
    if png is not None:
        _writable(png)
        draw_schedule(loaded, png)
    if as_json:
        _print_json({**loaded.to_dict(), "id": loaded.id})
    else:
        _OUT.print(terminal_drawing(loaded))


@app.command("import")
def import_(  # noqa: PLR0913, PLR0917 (one parameter per option)
    form: Annotated[str, typer.Argument(metavar="FORMAT", help="docs/importers.md has them all.")],
    source: Annotated[str, typer.Argument(metavar="FILE", help="The file, or a table's name.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Schedule file to write.")],
    process: Annotated[
        str | None,
        typer.Option("--process", help="edm, score_sde, adm, lsun, sd, flow, or a JSON object."),
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Number of steps.")] = None,
    solver: Annotated[
        str | None,
        typer.Option("--solver", help="ddim, euler, heun, dpmpp_2m, dpmpp_3m or unipc."),
    ] = None,
    index: Annotated[
        int | None, typer.Option("--index", min=0, help="Which of several results, from 0.")
    ] = None,
    shift: Annotated[float | None, typer.Option("--shift", help="A flow's shift.")] = None,
    mean_image: Annotated[
        Path | None, typer.Option("--mean-image", help="Mean of the data: .npy or .npz.")
    ] = None,
    ems: Annotated[
        Path | None, typer.Option("--ems", help="EMS statistics of the model, for v3 steps.")
    ] = None,
    stop: Annotated[
        bool | None, typer.Option("--stop", help="End at the last entry, not the clean end.")
    ] = None,
    compat: Annotated[
        bool | None, typer.Option("--compat", help="As the published code acts, not its paper.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Turn another project's schedule into one of ours: usf, diffusers, sigmas, ays, ..."""
    from s3search.importers import Request, import_schedule, process_named

    _writable(output)
    request = Request(
        source=source,
        process=None if process is None else process_named(process),
        steps=steps,
        solver=solver,
        index=index,
        shift=shift,
        mean_image=mean_image,
        ems=ems,
        stop=stop,
        compat=compat,
    )
    schedule = import_schedule(form, request)
    schedule.save(output)
    found = {"file": str(output), "schedule_id": schedule.id, "nfe": schedule.nfe}
    if as_json:
        _print_json({**found, **schedule.provenance})
        return
    _OUT.print(f"wrote {output}: NFE {schedule.nfe}", highlight=False, soft_wrap=True)
    for note in schedule.provenance["imported"].get("notes", ()):
        _OUT.print(f"note: {note}", highlight=False, soft_wrap=True)


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="A schedule (.json) or a study file (.toml).")],
    ems: Annotated[
        Path | None, typer.Option("--ems", help="The EMS file that the schedule names.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check a schedule or a study file without running anything."""
    if file.suffix == ".toml":
        from s3search.cluster import check_address
        from s3search.evaluation.evaluator import load_ems, load_gaussian
        from s3search.launching import space_of
        from s3search.study.config import load_config

        config = load_config(file)
        space_of(config)
        if config.statistics.ems is not None:
            load_ems(config.statistics.ems)
        if config.statistics.gaussian is not None:
            load_gaussian(config.statistics.gaussian)
        check_address(config.cluster.address)
        found: dict[str, Any] = {"file": str(file), "kind": "study", "name": config.study.name}
    else:
        from s3search.rules import EmsStatistics
        from s3search.solvers.plan import check_table

        loaded = Schedule.load(file)
        table = json.loads(file.read_text(encoding="utf-8")).get("plan")
        check_table(loaded, table, None if ems is None else EmsStatistics.load(ems))
        found = {"file": str(file), "kind": "schedule", "id": loaded.id, "nfe": loaded.nfe}
    if as_json:
        _print_json({"valid": True, **found})
    else:
        details = ", ".join(f"{key} {value}" for key, value in found.items() if key != "file")
        _OUT.print(f"{file}: valid ({details})", highlight=False, soft_wrap=True)


@app.command()
def schema() -> None:
    """Print the JSON Schema of schedule files."""
    _print_json(json_schema())


@app.command()
def dashboard(
    storage: Storage = None,
    port: Annotated[int, typer.Option("--port", help="Port on 127.0.0.1.")] = 8080,
    as_json: AsJson = False,
) -> None:
    """Serve Optuna dashboard on the studies' database, for this machine only."""
    from s3search.dashboard import serve

    serve(_storage(storage), port, announce=_print_json if as_json else _announce)


@app.command("train-digits")
def train_digits(
    output: Annotated[Path, typer.Option("--output", "-o", help="Safetensors file to write.")],
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """Train the embedded digits model and its extractors anew; some minutes on a CPU."""
    from s3search.models.digits_training import train

    _writable(output)

    def tell(stage: str, done: int, total: int, loss: float) -> None:
        if done % _TRAINING_LINE == 0 or done == total:
            _ERR.print(f"{stage}: {done}/{total}, loss {loss:.4f}", highlight=False)

    result = train(output, seed=seed, progress=tell)
    if as_json:
        _print_json({"file": str(output), **result})
    else:
        _OUT.print(f"wrote {output}: {result}", highlight=False, soft_wrap=True)


statistics = typer.Typer(
    name="statistics",
    help="Measure statistics of a study's model and images.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(statistics)

OutputFile = Annotated[Path, typer.Option("--output", "-o", help="File to write (.safetensors).")]
Images = Annotated[int, typer.Option("--n-images", min=2, help="Clean images to measure on.")]
ImageSource = Annotated[
    str, typer.Option("--source", help="Clean images: 'model' (its own) or 'reference'.")
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of images and noise.")]


@statistics.command("ems")
def statistics_ems(
    study: StudyFile,
    output: OutputFile,
    nodes: Annotated[
        int, typer.Option("--nodes", min=2, help="Intervals between the nodes in lam.")
    ] = 120,
    n_images: Images = 1024,
    exact: Annotated[
        bool, typer.Option("--exact", help="Exact Jacobian diagonals: a product per pixel.")
    ] = False,
    source: ImageSource = "model",
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Measure the EMS of DPM-Solver-v3 for the study's model; run it again to resume."""
    from s3search.measuring import measure_ems
    from s3search.study.config import load_config

    config = load_config(study)
    _writable(output)
    found = measure_ems(
        config,
        output,
        n_intervals=nodes,
        n_images=n_images,
        n_probes=None if exact else 1,
        source=_source(source),
        seed=seed,
        report=_reporter("node"),
    )
    _print_statistics(output, {"digest": found.digest, **found.provenance}, as_json=as_json)


@statistics.command("gaussian")
def statistics_gaussian(
    study: StudyFile,
    output: OutputFile,
    n_images: Images = 1024,
    n_modes: Annotated[
        int, typer.Option("--modes", min=1, help="Leading eigenvectors to keep.")
    ] = 64,
    source: ImageSource = "model",
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Measure mean and leading eigenvectors of the images of the study's model."""
    from s3search.measuring import measure_gaussian
    from s3search.study.config import load_config

    config = load_config(study)
    _writable(output)
    found = measure_gaussian(
        config,
        output,
        n_images=n_images,
        n_modes=n_modes,
        source=_source(source),
        seed=seed,
        report=_reporter("image"),
    )
    shown = {"n_modes": len(found.eigenvalues), "rest": found.rest, **found.provenance}
    _print_statistics(output, shown, as_json=as_json)


def _source(name: str) -> Any:
    from s3search.measuring import Source

    try:
        return Source(name)
    except ValueError as error:
        raise InvalidConfig(f"--source is 'model' or 'reference', found {name!r}") from error


def _reporter(what: str) -> Callable[[int, int], None]:
    def report(done: int, total: int) -> None:
        if done == total or done % max(1, total // 10) == 0:
            _ERR.print(f"{what} {done} of {total}", highlight=False)

    return report


def _print_statistics(output: Path, found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        _print_json({"file": str(output), **found})
    else:
        details = ", ".join(f"{key} {value}" for key, value in found.items())
        _OUT.print(f"wrote {output}: {details}", highlight=False, soft_wrap=True)


def main() -> None:
    """Runs the command line and exits with its code."""
    signal.signal(signal.SIGTERM, _interrupt)
    sys.exit(_run())


def _run() -> int:
    try:
        code = app(standalone_mode=False)
        return code if isinstance(code, int) else 0
    except EvaluationFailed as error:
        return _fail(error, 1)
    except S3SearchError as error:
        return _fail(error, 2)
    except KeyboardInterrupt:
        return 130
    except typer.Exit as error:
        return error.exit_code
    except Exception as error:
        if hasattr(error, "format_message"):
            return _fail_usage(error)
        from optuna.exceptions import StorageInternalError
        from sqlalchemy.exc import SQLAlchemyError

        if not isinstance(error, SQLAlchemyError | StorageInternalError):
            raise
        cause = getattr(error, "orig", None) or error.__cause__ or error
        return _fail(f"the database failed ({cause}); run the same command to resume", 1)


def _fail(error: Exception | str, code: int) -> int:
    """One line on stderr, whatever a plug-in's message looks like."""
    sentence = " ".join(f"error: {error}".split())
    _ERR.print(sentence, style="red", highlight=False, soft_wrap=True, markup=False)
    return code


def _fail_usage(error: Any) -> int:
    """A usage error of the parser; without any argument it is the help text."""
    if not sys.argv[1:]:
        error.show()
        return 2
    command = error.ctx.command_path if getattr(error, "ctx", None) else app.info.name
    return _fail(f"{error.format_message().rstrip('.')}; see `{command} --help`", 2)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _launch(config: Any, *, quiet: bool) -> None:
    from s3search.launching import launch as run
    from s3search.study.database import redacted
    from s3search.terminal import progress

    try:
        with progress(_ERR if quiet else _OUT) as report:
            run(config, report)
    except KeyboardInterrupt:
        _ERR.print(
            f"interrupted; what was measured is saved in {redacted(config.storage.url)}. "
            f"Resume with: {shlex.join(['s3search', *sys.argv[1:]])}",
            highlight=False,
            soft_wrap=True,
        )
        raise


def _config(study: Path, storage: str | None, address: str | None, sets: list[str] | None) -> Any:
    from s3search.study.config import load_config

    overrides = list(sets or [])
    if storage is not None:
        overrides.append(f"storage.url={json.dumps(storage)}")
    elif "S3SEARCH_STORAGE" in os.environ:
        overrides.insert(0, f"storage.url={json.dumps(os.environ['S3SEARCH_STORAGE'])}")
    if address is not None:
        overrides.append(f"cluster.address={json.dumps(address)}")
    return load_config(study, overrides)


def _storage(storage: str | None) -> str:
    from s3search.study.config import DEFAULT_STORAGE

    return storage or os.environ.get("S3SEARCH_STORAGE") or DEFAULT_STORAGE


def _status(url: str, name: str) -> dict[str, Any]:
    from s3search.study.frame import status_of
    from s3search.study.store import open_study

    with open_study(url, name) as store:
        return status_of(store)


def _comparison(url: str, name: str) -> dict[str, Any]:
    from s3search.study.frame import comparison_of
    from s3search.study.store import open_study

    with open_study(url, name) as store:
        return comparison_of(store)


def _print_comparison(url: str, name: str) -> None:
    from s3search.study.frame import evaluations_frame, validated
    from s3search.study.store import open_study
    from s3search.terminal import comparison_table

    with open_study(url, name) as store:
        scored = validated(evaluations_frame(store), store.config)
        if not scored:
            raise InvalidConfig(
                f"study {name!r} has no validated schedule yet (it is {store.state}); "
                "run `s3search launch` to its end first"
            )
        _OUT.print(comparison_table(scored))


def _writable(path: Path) -> None:
    """Raises before any work is done if ``path`` cannot be written."""
    if path.is_dir() or not path.parent.is_dir():
        found = "a folder" if path.is_dir() else f"no folder {path.parent}"
        raise InvalidConfig(f"cannot write {path}: there is {found}")
    probe = neighbour(path)
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InvalidConfig(f"cannot write {path}: {error.strerror}") from error


def _announce(found: dict[str, Any]) -> None:
    _OUT.print(
        f"Optuna dashboard on {found['url']} (stop with Ctrl-C)", highlight=False, soft_wrap=True
    )


def _print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=1, default=str) + "\n")
    sys.stdout.flush()
