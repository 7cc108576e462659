"""From a schedule to a measured result with its provenance."""
