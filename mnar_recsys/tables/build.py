"""From settings and a table to the parts of the model: the one place where they are chosen by name."""

import math

import torch
from torch import Tensor

from mnar_recsys.config.tables import LogOdds, TableSettings
from mnar_recsys.data import RatingScale
from mnar_recsys.model.missing import Agnostic, Equivariant, Ignorable, Invariant, KnownMap, Logistic, MissingModel
from mnar_recsys.tables.encoders import ConvEncoder, DenseSetEncoder, MlpEncoder, TableEncoder
from mnar_recsys.tables.latent_posterior import GaussianPosterior, StudentTPosterior
from mnar_recsys.tables.likelihoods import Bernoulli, Gaussian, Likelihood, StudentT
from mnar_recsys.tables.networks import ConvNetwork, MlpNetwork, Network
from mnar_recsys.tables.standardise import Units
from mnar_recsys.tables.table_vae import TableVae

# Of values with mean 0 and standard deviation 1: slopes are in nats a standard deviation.
_SCALE = RatingScale(-2, 2)
_MOST_LATENT = 50
# As in the paper's code: the softplus of about 0 is ln 2 a standard deviation, of which the scale has four.
_SLOPE_START = 4 * math.log(2)


def build_table_vae(
    settings: TableSettings, share_observed: Tensor, units: Units, log_odds: LogOdds | None, seed: int
) -> TableVae:
    """Return an untrained model for features of which these shares (P,) are observed, in (0, 1)."""
    n_features = len(share_observed)
    size = settings.latent_size or min(max(n_features - 1, 1), _MOST_LATENT)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        likelihood = _likelihood(settings)
        return TableVae(
            _encoder(settings, n_features, size),
            GaussianPosterior() if settings.posterior == "gaussian" else StudentTPosterior(),
            _network(settings, size, likelihood.n_channels, n_features),
            likelihood,
            _missing(settings, torch.logit(share_observed), units, log_odds),
            latent_size=size,
            marginal=settings.is_marginal,
        )


def _encoder(settings: TableSettings, n_features: int, size: int) -> TableEncoder:
    match settings.encoder:
        case "mlp":
            return MlpEncoder(n_features, settings.hidden, size, mask_input=settings.mask_input)
        case "set":
            return DenseSetEncoder(n_features, _SCALE, size)
        case "conv":
            assert settings.image_shape is not None  # noqa: S101 - the settings are checked
            return ConvEncoder(settings.image_shape, settings.channels, size, mask_input=settings.mask_input)


def _network(settings: TableSettings, size: int, n_channels: int, n_features: int) -> Network:
    if settings.decoder == "conv":
        assert settings.image_shape is not None  # noqa: S101 - the settings are checked
        return ConvNetwork(size, settings.image_shape, settings.channels, n_channels)
    return MlpNetwork(size, () if settings.decoder == "linear" else settings.hidden, n_channels, n_features)


def _likelihood(settings: TableSettings) -> Likelihood:
    if settings.likelihood == "bernoulli":
        return Bernoulli()
    family = Gaussian if settings.likelihood == "gaussian" else StudentT
    return family(shared_sd=settings.decoder == "linear", least_sd=settings.least_sd)


def _missing(settings: TableSettings, log_shares: Tensor, units: Units, log_odds: LogOdds | None) -> MissingModel:
    match settings.missing:
        case "ignorable":
            return Ignorable(log_shares)
        case "self-masking":
            return Logistic(log_shares, _SCALE, centre=0.0, sign=settings.sign, per_item=True, start=_SLOPE_START)
        case "agnostic":
            return Agnostic(log_shares, _SCALE, centre=0.0, sign=settings.sign, hidden=0, prior_sd=None)
        case "invariant":
            return Invariant(log_shares)
        case "equivariant":
            assert settings.image_shape is not None  # noqa: S101 - the settings are checked
            return Equivariant(log_shares, settings.image_shape)
        case "known":
            assert log_odds is not None  # noqa: S101 - the imputer has seen to it
            return KnownMap(
                log_odds, centre=torch.from_numpy(units.centre).float(), unit=torch.from_numpy(units.unit).float()
            )
