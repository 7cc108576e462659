"""The study file: TOML to typed tables."""
