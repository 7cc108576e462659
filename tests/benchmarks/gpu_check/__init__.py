"""The check of a machine with a GPU, one row for each claim: see ``__main__``."""
