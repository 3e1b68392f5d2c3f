"""Training: one loop, its settings in ``mnar_recsys.config``, its state on disk."""

from mnar_recsys.training.state import Progress, load_checkpoint, save_checkpoint
from mnar_recsys.training.terms import BoundTerms
from mnar_recsys.training.trainer import Trainer, pick_device

__all__ = ["BoundTerms", "Progress", "Trainer", "load_checkpoint", "pick_device", "save_checkpoint"]
