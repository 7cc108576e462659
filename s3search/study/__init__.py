"""The study: its file, its database and what is read back from it."""
