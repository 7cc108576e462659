"""Real images and their statistics: folders, datasets, and files that other tools write."""

from s3search.metrics.references.dataset import DatasetImages
from s3search.metrics.references.folder import FolderImages
from s3search.metrics.references.source import ImageSource, evenly_chosen, in_batches
from s3search.metrics.references.statistics_file import StatisticsFile

__all__ = [
    "DatasetImages",
    "FolderImages",
    "ImageSource",
    "StatisticsFile",
    "evenly_chosen",
    "in_batches",
]
