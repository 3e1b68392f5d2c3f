"""p(x|z), one decoder a file."""

from mnar_recsys.model.decoders.base import Decoder, DrawnRatings, Grid, RatingDistribution
from mnar_recsys.model.decoders.gaussian import GaussianDecoder, GaussianRatings
from mnar_recsys.model.decoders.levels import CategoricalDecoder, LevelRatings
from mnar_recsys.model.decoders.ordinal import OrdinalDecoder, OrdinalRatings
from mnar_recsys.model.decoders.student_t import StudentTDecoder, StudentTRatings

__all__ = [
    "CategoricalDecoder",
    "Decoder",
    "DrawnRatings",
    "GaussianDecoder",
    "GaussianRatings",
    "Grid",
    "LevelRatings",
    "OrdinalDecoder",
    "OrdinalRatings",
    "RatingDistribution",
    "StudentTDecoder",
    "StudentTRatings",
]
