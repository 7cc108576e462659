"""A module that no reader may import: hostile files name it."""


def run() -> None:
    """Does nothing; that it was imported is enough."""
