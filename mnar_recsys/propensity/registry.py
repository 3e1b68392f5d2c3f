"""The names of propensity models."""

from collections.abc import Mapping
from types import MappingProxyType

from mnar_recsys.errors import ConfigError
from mnar_recsys.propensity.base import PropensityModel
from mnar_recsys.propensity.factorised import FactorisedMask, LogisticFactorisedMask
from mnar_recsys.propensity.logistic import LogisticFeatures
from mnar_recsys.propensity.naive_bayes import MultifactorialPropensity, NaiveBayes
from mnar_recsys.propensity.one_bit import OneBitCompletion
from mnar_recsys.propensity.poisson import PoissonFactorization
from mnar_recsys.propensity.popularity import ItemPopularity, UserItemPopularity, UserPopularity
from mnar_recsys.propensity.uniform import Uniform

PROPENSITIES: Mapping[str, type[PropensityModel]] = MappingProxyType(
    {
        "uniform": Uniform,
        "item_popularity": ItemPopularity,
        "user_popularity": UserPopularity,
        "user_item_popularity": UserItemPopularity,
        "naive_bayes": NaiveBayes,
        "multifactorial": MultifactorialPropensity,
        "logistic": LogisticFeatures,
        "als": FactorisedMask,
        "lmf": LogisticFactorisedMask,
        "one_bit": OneBitCompletion,
        "poisson": PoissonFactorization,
    }
)


def find_propensity(name: str) -> type[PropensityModel]:
    """Return the model called ``name``; all its settings have defaults.

    Raises
    ------
    ConfigError
        If there is none of that name.
    """
    if name not in PROPENSITIES:
        raise ConfigError(f"propensity must be one of {', '.join(PROPENSITIES)}; found {name!r}. Name one of those")
    return PROPENSITIES[name]
