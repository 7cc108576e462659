"""Schedules in other people's pipelines: one module per library, the only one to import it."""
