"""Whose code a command is about to run, said before it does."""

from s3search.cli.output import ERR, say


def announce_code(url: str, study: str) -> None:
    """Says on stderr which functions a study of a database names and will have called."""
    from s3search.study.database.store import open_study
    from s3search.study.file.named_code import code_sentence

    with open_study(url, study) as store:
        say(code_sentence(store.config, will=True), on=ERR)
