"""Masks and overlays of a folder of pictures, with a trained student or an exported model."""

from lib.predict.folder import Report, predict_pictures
from lib.predict.inputs import InputError, Job, find_jobs
from lib.predict.model import load_model

__all__ = ["InputError", "Job", "Report", "find_jobs", "load_model", "predict_pictures"]
