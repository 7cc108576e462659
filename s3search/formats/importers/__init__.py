"""Schedules that other projects found or run, read into ours; one module per format.

>>> schedule = import_schedule("sigmas", Request(source="sigmas.txt", process=edm()))

Files are data here: nothing in them is executed, and a file that asks for it is refused.
"""

from s3search.formats.importers.formats import FORMATS, ImportFormat, import_schedule
from s3search.formats.importers.request import PROCESSES, Request, process_named

__all__ = ["FORMATS", "PROCESSES", "ImportFormat", "Request", "import_schedule", "process_named"]
