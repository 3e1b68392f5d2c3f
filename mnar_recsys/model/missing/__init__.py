"""p(s|x), one family a file."""

from mnar_recsys.model.missing.agnostic import Agnostic
from mnar_recsys.model.missing.base import MissingModel
from mnar_recsys.model.missing.known import Known
from mnar_recsys.model.missing.logistic import Ignorable, Logistic, PerLevel

__all__ = ["Agnostic", "Ignorable", "Known", "Logistic", "MissingModel", "PerLevel"]
