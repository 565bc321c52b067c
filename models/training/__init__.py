"""Training of the detectors: `train` a new one, `fine_tune` one in memory. Needs torch."""

from models.training.distill import Teacher
from models.training.loop import TrainingDiverged
from models.training.options import Distill, Stage, TrainOptions
from models.training.run import FineTuned, fine_tune, train
from models.training.settings import describe, from_settings

__all__ = [
    "Distill",
    "FineTuned",
    "Stage",
    "Teacher",
    "TrainOptions",
    "TrainingDiverged",
    "describe",
    "fine_tune",
    "from_settings",
    "train",
]
