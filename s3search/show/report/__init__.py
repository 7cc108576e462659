"""A study as one page that needs nothing else: what was found, how sure that is, what it cost."""

from s3search.show.report.writing import Written, write_report

__all__ = ["Written", "write_report"]
