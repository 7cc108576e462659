"""The command line: parses, calls, prints.  Exit codes: 0 done, 1 failed, 2 bad input, 130
interrupted.
"""

from s3search.cli.commands import app
from s3search.cli.running import main, run

__all__ = ["app", "main", "run"]
