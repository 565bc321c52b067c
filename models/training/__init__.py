"""Training of the detectors: `train` with `TrainOptions`. Needs torch."""

from models.training.loop import TrainingDiverged, train
from models.training.options import TrainOptions, describe, from_settings

__all__ = ["TrainOptions", "TrainingDiverged", "describe", "from_settings", "train"]
