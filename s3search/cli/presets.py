"""The command that hands out study files of well-known models."""

from pathlib import Path
from typing import Annotated

import typer

from s3search.cli.options import AsJson
from s3search.cli.output import OUT, print_json, writable
from s3search.errors import InvalidConfig
from s3search.files import write_text


def preset(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Left out: lists all of them.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Study file to write (.toml); none is overwritten."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List or write study files of well-known models (EDM, ADM, LDM, Stable Diffusion, Flux, DiT)
    to complete.
    """
    from s3search.study.file.presets import study_preset, study_presets

    if name is None:
        if output is not None:
            raise InvalidConfig(
                "--output: which preset? `s3search preset` lists them, "
                f"`s3search preset NAME -o {output}` writes one"
            )
        found = study_presets()
        if as_json:
            print_json({"presets": [{"name": p.name, "summary": p.summary} for p in found]})
            return
        width = max((len(p.name) for p in found), default=0)
        for p in found:
            OUT.print(f"{p.name:{width}}  {p.summary}", highlight=False, soft_wrap=True)
        return
    chosen = study_preset(name)
    said = {"name": chosen.name, "summary": chosen.summary, "fill_in": chosen.blanks}
    if output is None:
        if as_json:
            print_json({**said, "text": chosen.text})
        else:
            OUT.print(chosen.text, end="", highlight=False, soft_wrap=True)
        return
    if output.exists():
        raise InvalidConfig(f"--output: {output} exists; name another file, or remove it first")
    writable(output)
    write_text(output, chosen.text)
    if as_json:
        print_json({**said, "file": str(output)})
        return
    OUT.print(f"wrote {output}", highlight=False, soft_wrap=True)
    for key, what in chosen.blanks.items():
        OUT.print(f"fill in {key}{what and ': '}{what}", highlight=False, soft_wrap=True)
    OUT.print(f"then: s3search launch {output}", highlight=False, soft_wrap=True)
