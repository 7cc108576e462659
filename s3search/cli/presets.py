"""The command that hands out study files of well-known models."""

from pathlib import Path
from typing import Annotated

import typer

from s3search.cli.options import AsJson
from s3search.cli.output import OUT, answer, print_json, writable
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
    """List study files of well-known models, or write one.

    EDM, ADM, LDM, Stable Diffusion, Flux and DiT.
    """
    from s3search.study.file.presets import study_preset, study_presets

    if name is None:
        if output is not None:
            raise InvalidConfig(
                "--output: which preset? `s3search preset` lists them, "
                f"`s3search preset NAME -o {output}` writes one"
            )
        found = study_presets()
        width = max((len(p.name) for p in found), default=0)
        lines = [f"{p.name:{width}}  {p.summary}" for p in found]
        value = {"presets": [{"name": p.name, "summary": p.summary} for p in found]}
        answer(value, *lines, as_json=as_json)
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
    blanks = [f"fill in {key}{what and ': '}{what}" for key, what in chosen.blanks.items()]
    lines = [f"wrote {output}", *blanks, f"then: s3search launch {output}"]
    answer({**said, "file": str(output)}, *lines, as_json=as_json)
