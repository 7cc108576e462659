"""The command line in this process, and a finished study to ask about."""

from tests.cli.test_cli import cli, folder, storage

__all__ = ["cli", "folder", "storage"]
