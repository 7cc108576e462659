"""Whether model, extractor and reference are what a study takes them for, by a few calls."""
