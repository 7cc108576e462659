"""The demo: search a schedule of five network calls for the embedded digits model, on this
machine.
"""

from pathlib import Path

from s3search.cluster.pool import WorkerPool
from s3search.evaluation.record import Reply, Request
from s3search.formats.exporters.schedule_json import save_export
from s3search.run.launching import workers
from s3search.schedules.published import dpmpp_2m
from s3search.schedules.spacing import End, EndRule
from s3search.show.pictures import draw_schedule
from s3search.show.pictures.grids import draw_grid
from s3search.study.database.store import StudyStore, open_study
from s3search.study.file.config import ClusterTable, StudyConfig
from s3search.study.results.export import best_schedule
from s3search.study.results.frame import best_of, evaluations_frame, validated

REFERENCE_CALLS = 100

STUDY = """\
# The study of `s3search demo`; run it again with `s3search launch {path}`.
[study]
name = "{name}"
seed = 0
[model]
loader = "digits"            # the embedded model; or "your_package.your_module:function"
[space]
preset = "usf"               # any field of the preset can be overridden here
nfe = [5]                    # network calls per image
[metric]
features = "digits"
[reference]
images = "digits"
[search]
evaluations = {evaluations}            # as many images as so many whole measurements take
n_images = {n_images}              # images per evaluation while searching
baselines = true
[validation]
n_images = {validation_images}             # held-out noise; what is exported is chosen there
finalists = 8
[validation.metric]          # a second extractor sees the same images and chooses nothing
features = "digits"
network = "b"
[storage]
url = "sqlite:///{storage}"
[cluster]
address = "local"
workers = 2
gpus_per_worker = 0
"""


def study_text(directory: Path, *, quick: bool) -> str:
    """The demo's study file; ``quick`` is a smoke test, whose numbers mean little."""
    return STUDY.format(
        path=directory / "study.toml",
        name="demo-quick" if quick else "demo",
        evaluations=20 if quick else 300,
        n_images=100 if quick else 1000,
        validation_images=400 if quick else 10_000,
        storage=directory / "s3search.db",
    )


def write_pictures(config: StudyConfig, directory: Path) -> list[Path]:
    """Writes schedule.json, schedule.png and samples.png of a finished study with one NFE.

    The few images are made in this process: workers would take longer to start.
    """
    here = config.model_copy(update={"cluster": ClusterTable(address="inline")})
    with open_study(config.storage.url, config.study.name) as store, workers(here) as pool:
        schedule, best = best_schedule(store)
        paths = [directory / name for name in ("schedule.json", "schedule.png", "samples.png")]
        save_export(schedule, paths[0])
        title = (
            f"{config.study.name}: NFE {schedule.nfe}, distance {best.value:.4f} on held-out noise"
        )
        draw_schedule(schedule, paths[1], title)
        _draw_grid(store, pool, paths[2])
    return paths


def _draw_grid(store: StudyStore, pool: WorkerPool[Request, Reply], path: Path) -> None:
    scored = validated(evaluations_frame(store), store.config)
    found, baseline = best_of(scored)
    first = store.schedule(scored[0].schedule_id)
    reference = dpmpp_2m(
        first.process, nfe=REFERENCE_CALLS, spacing="karras", end=End(rule=EndRule.DENOISE)
    )
    rows = [(f"reference solve, NFE {REFERENCE_CALLS}", reference)]
    for label, row in (("best published", baseline), ("s3search", found)):
        if row is not None:
            rows.append(
                (
                    f"{label}, NFE {row.nfe}\ndistance {row.value:.3f}",
                    store.schedule(row.schedule_id),
                )
            )
    draw_grid(pool, rows, path, noise_seed=store.config.validation_noise_seed)
