"""Search spaces: what a search may choose among."""
