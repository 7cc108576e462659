"""Commands of checkpoints: what a pickle would run, and its weights without running it."""

from pathlib import Path
from typing import Annotated

import typer

from s3search.cli.options import AsJson
from s3search.cli.output import OUT, print_json, writable

checkpoint = typer.Typer(
    name="checkpoint",
    help="Look into a pickled checkpoint, or convert it to safetensors; nothing of it is run.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

PickleFile = Annotated[Path, typer.Argument(metavar="PICKLE", help="A network's .pkl of NVlabs.")]


@checkpoint.command()
def inspect(pickle: PickleFile, as_json: AsJson = False) -> None:
    """Name the functions that loading a pickle would call."""
    from s3search.models.checkpoints import existing
    from s3search.models.edm.pickles import foreign_globals, globals_named

    file = existing(pickle)
    names, foreign = globals_named(file), foreign_globals(file)
    if as_json:
        print_json({"file": str(file), "calls": names, "unusual": foreign})
        return
    for name in names:
        note = "  (no checkpoint of NVlabs needs this)" if name in foreign else ""
        OUT.print(f"{name}{note}", highlight=False, soft_wrap=True)


@checkpoint.command()
def convert(
    pickle: PickleFile,
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write (.safetensors).")],
    as_json: AsJson = False,
) -> None:
    """Write the weights and settings of an EDM pickle as safetensors."""
    from s3search.models import edm

    writable(output)
    settings = edm.convert(pickle, output)
    if as_json:
        print_json({"file": str(output), **settings})
    else:
        shown = ", ".join(f"{key} {value}" for key, value in settings.items())
        OUT.print(f"wrote {output}: {shown}", highlight=False, soft_wrap=True)
