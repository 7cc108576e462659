"""From the words on the command line to an exit code."""

import json
import signal
import sys
from typing import Any

import typer

from s3search.cli.commands import app
from s3search.cli.output import ERR
from s3search.errors import EvaluationFailed, S3SearchError
from s3search.show.terminal.escaping import guard_streams


def main() -> None:
    """Runs the command line and exits with its code."""
    signal.signal(signal.SIGTERM, _interrupt)
    guard_streams()
    sys.exit(run())


def run() -> int:
    """Runs the command line of this process; the exit code, with any error told on stderr."""
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
        if isinstance(error, OSError) and error.strerror is not None:
            what = error.filename or "a file or a connection"
            return _fail(f"{what}: {error.strerror}; nothing of it was kept", 1)
        if isinstance(error, UnicodeDecodeError | json.JSONDecodeError):  # files say their own
            return _fail(
                f"the database holds a damaged value ({error}); read a copy from before, or save "
                "the studies that are whole: s3search storage copy NAME --to URL",
                2,
            )
        from optuna.exceptions import StorageInternalError
        from sqlalchemy.exc import SQLAlchemyError

        if not isinstance(error, SQLAlchemyError | StorageInternalError):
            raise
        cause = getattr(error, "orig", None) or error.__cause__ or error
        return _fail(f"the database failed ({cause}); run the same command to resume", 1)


def _fail(error: Exception | str, code: int) -> int:
    """One line on stderr, whatever a plug-in's message looks like."""
    sentence = " ".join(f"error: {error}".split())
    ERR.print(sentence, style="red", highlight=False, soft_wrap=True)
    return code


def _fail_usage(error: Any) -> int:
    """A usage error of the parser; of a group that is given no command it is the help text."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return 2
    command = error.ctx.command_path if getattr(error, "ctx", None) else app.info.name
    return _fail(f"{error.format_message().rstrip('.')}; see `{command} --help`", 2)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
