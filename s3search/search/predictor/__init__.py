"""The predictor of S3: from measured schedules and proxies to a forecast of the log distance."""
