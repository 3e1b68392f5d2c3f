"""p(s|x), one family a file."""

from mnar_recsys.model.missing.agnostic import Agnostic
from mnar_recsys.model.missing.base import MissingModel
from mnar_recsys.model.missing.known import Known, KnownMap
from mnar_recsys.model.missing.logistic import Ignorable, Logistic, PerLevel
from mnar_recsys.model.missing.symmetric import Equivariant, Invariant

__all__ = [
    "Agnostic",
    "Equivariant",
    "Ignorable",
    "Invariant",
    "Known",
    "KnownMap",
    "Logistic",
    "MissingModel",
    "PerLevel",
]
