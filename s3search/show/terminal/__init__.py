"""What the command line prints, by subject."""
