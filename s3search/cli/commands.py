"""All commands, in the order of the help: groups by what somebody is about to do."""

from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

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

Command = Callable[..., Any] | typer.Typer

_GROUPS: dict[str, tuple[str, tuple[Command, ...]]] = {
    "Run": (
        "s3search launch study.toml",
        (demo, preset, check, launch, submit, jobs),
    ),
    "Look": (
        "s3search best my-study",
        (status, best, compare, report, dashboard, show),
    ),
    "Export and exchange": (
        "s3search export my-study --nfe 5 -o schedule.json",
        (export, import_, retime, schema),
    ),
    "Measure": (
        "s3search evaluate schedule.json study.toml --n-images 10000",
        (evaluate, metrics, robustness, bench),
    ),
    "Care": (
        's3search veto my-study 12 --reason "blurred"',
        (veto, publish, storage_app),
    ),
    "Tools": (
        "s3search inspect-model study.toml",
        (inspect_model, statistics, reference, checkpoint, train_digits),
    ),
}
"""An example for each, and its commands."""


def _name(command: Command) -> str:
    if isinstance(command, typer.Typer):
        return str(command.info.name)
    return command.__name__.strip("_").replace("_", "-")


class _Grouped(TyperGroup):
    """The help lists the commands in their groups."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        for title, (example, commands) in _GROUPS.items():
            names = [_name(command) for command in commands]
            found = [(name, self.get_command(ctx, name)) for name in names]
            width = formatter.width - formatter.current_indent - _NAME_WIDTH
            rows = [(name, own.get_short_help_str(width)) for name, own in found if own]
            with formatter.section(f"{title} ({example})"):
                formatter.write_dl(rows, col_max=_NAME_WIDTH)


_NAME_WIDTH = 15

app = typer.Typer(
    name="s3search",
    cls=_Grouped,
    help="Find the solver schedule that gives a diffusion or flow model "
    "its best images at few network calls.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _say_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"s3search {version('s3search')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[  # its callback says it
        bool,
        typer.Option(
            "--version", callback=_say_version, is_eager=True, help="Say the version and exit."
        ),
    ] = False,
) -> None:
    pass


for _, _commands in _GROUPS.values():
    for _command in _commands:
        if isinstance(_command, typer.Typer):
            app.add_typer(_command)
        else:
            app.command(_name(_command))(_command)
