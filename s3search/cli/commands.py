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
from s3search.cli.options import command_group
from s3search.cli.output import ERR, say
from s3search.cli.presets import preset
from s3search.cli.schedules import evaluate, import_, schema, show
from s3search.cli.statistics import statistics
from s3search.cli.storage import storage_app
from s3search.cli.studies import best, compare, demo, launch, report, status
from s3search.cli.training import train_digits
from s3search.cli.transfer import retime, robustness
from s3search.cli.vetoing import veto

Command = Callable[..., Any] | typer.Typer

tools = command_group("tools", "Retime, benchmark, more metrics, statistics, checkpoints.")

_GROUPS: dict[str, tuple[str, tuple[Command, ...]]] = {
    "Run": (
        "s3search launch study.toml",
        (demo, preset, check, launch, jobs),
    ),
    "Look": (
        "s3search best my-study",
        (status, best, compare, report, dashboard),
    ),
    "Schedules": (
        "s3search export my-study --nfe 5 -o schedule.json",
        (export, import_, show, evaluate),
    ),
    "Care": (
        's3search veto my-study 12 --reason "blurred"',
        (veto, storage_app, tools),
    ),
}
"""An example for each, and its commands."""

_FOLDED: tuple[tuple[typer.Typer, tuple[Command, ...]], ...] = (
    (jobs, (submit,)),
    (storage_app, (publish,)),
    (tools, (retime, robustness, metrics, bench, schema, inspect_model)),
    (tools, (statistics, reference, checkpoint, train_digits)),
)
"""Commands under the word of another one."""


def _name(command: Command) -> str:
    if isinstance(command, typer.Typer):
        return str(command.info.name)
    return command.__name__.strip("_").replace("_", "-")


def _add(group: typer.Typer, command: Command) -> None:
    if isinstance(command, typer.Typer):
        group.add_typer(command)
    else:
        group.command(_name(command))(command)


_OLD_NAMES = {_name(each): _name(group) for group, folded in _FOLDED for each in folded}
"""Commands that had no word before their name until version 0.2, and that word."""


class _Grouped(TyperGroup):
    """The help lists the commands in their groups; names of before are known, not listed."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        group = _OLD_NAMES.get(args[0])
        if group is None:
            return super().resolve_command(ctx, args)
        if not ctx.resilient_parsing:  # a shell that completes wants no words
            new = f"s3search {group} {args[0]}"
            say(
                f"note: `s3search {args[0]}` is now `{new}`; the next version knows the new name"
                " alone",
                on=ERR,
            )
        return super().resolve_command(ctx, [group, *args])

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


for _group, _commands in _FOLDED:
    for _command in _commands:
        _add(_group, _command)
for _, _commands in _GROUPS.values():
    for _command in _commands:
        _add(app, _command)
