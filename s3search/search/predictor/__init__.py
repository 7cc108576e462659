"""The predictor of S3: from measured schedules and proxies to a forecast of the log distance."""

from s3search.search.predictor.acquire import acquire, log_expected_improvement, places
from s3search.search.predictor.base import Example, Forecast, Predictor
from s3search.search.predictor.blend import Blend
from s3search.search.predictor.calibration import Calibration, calibration_of
from s3search.search.predictor.choice import CANDIDATES, ChosenPredictor, choose
from s3search.search.predictor.process import Process
from s3search.search.predictor.sequence import SequenceModel
from s3search.search.predictor.trees import Trees

__all__ = [
    "CANDIDATES",
    "Blend",
    "Calibration",
    "ChosenPredictor",
    "Example",
    "Forecast",
    "Predictor",
    "Process",
    "SequenceModel",
    "Trees",
    "acquire",
    "calibration_of",
    "choose",
    "log_expected_improvement",
    "places",
]
