"""``python -m s3search``."""

from s3search.cli import main

main()
