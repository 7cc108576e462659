"""The release of s3search, which stands beside every number that it measures."""

CODE_VERSION = "0.1.0"
