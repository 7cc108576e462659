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

app.command()(demo)
app.command()(preset)
app.command()(launch)
app.command()(submit)
app.command()(status)
app.command()(best)
app.command()(veto)
app.command()(compare)
app.command()(evaluate)
app.command()(robustness)
app.command()(metrics)
app.command()(reference)
app.command()(export)
app.command()(report)
app.command()(show)
app.command("import")(import_)
app.command()(retime)
app.command()(check)
app.command()(schema)
app.command("inspect-model")(inspect_model)
app.command()(dashboard)
app.command()(publish)
app.command()(bench)
app.command("train-digits")(train_digits)
app.add_typer(statistics)
app.add_typer(checkpoint)
app.add_typer(jobs)
app.add_typer(storage_app)
