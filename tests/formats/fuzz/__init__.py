"""Hostile files for every reader of files: `python -m tests.formats.fuzz 10000`.

mutations   what is done to valid bytes, texts and trees of values
samples     valid files of each kind, and how each is spoilt
readers     every reader, with the samples that it reads
running     one input, watched: its time, its error, and what it tried to run
"""
