"""All commands, in the order of the help."""

import typer

from s3search.cli.benchmarks import bench
from s3search.cli.checking import check
from s3search.cli.checkpoints import checkpoint
from s3search.cli.dashboards import dashboard, publish
from s3search.cli.exporting import export
from s3search.cli.jobs import jobs, submit
from s3search.cli.metrics import metrics, reference
from s3search.cli.models import inspect_model
from s3search.cli.presets import preset
from s3search.cli.schedules import evaluate, import_, schema, show
from s3search.cli.statistics import statistics
from s3search.cli.storage import storage_app
from s3search.cli.studies import best, compare, demo, launch, report, status
from s3search.cli.training import train_digits
from s3search.cli.transfer import retime, robustness
from s3search.cli.vetoing import veto

app = typer.Typer(
    name="s3search",
    help="Find the solver schedule that gives a diffusion or flow model "
    "its best images at few network calls.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

for command in (
    *(demo, preset, launch, submit, status, best, veto, compare, evaluate, robustness, metrics),
    *(reference, export, report, show, import_, retime, check, schema, inspect_model, dashboard),
    *(publish, bench, train_digits),
):
    app.command(command.__name__.strip("_").replace("_", "-"))(command)
for group in (statistics, checkpoint, jobs, storage_app):
    app.add_typer(group)
