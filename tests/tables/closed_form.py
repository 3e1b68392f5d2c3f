"""A linear Gaussian model of a table, and what is known of it without sampling."""

import numpy as np
import torch
from scipy import stats
from scipy.special import expit

from mnar_recsys.config.tables import TableSettings
from mnar_recsys.tables.build import build_table_vae
from mnar_recsys.tables.stacked import Rows
from mnar_recsys.tables.standardise import Units
from mnar_recsys.tables.table_vae import TableVae

SLOPE = -2.0
REACH = (-4.0, 4.0)


def linear_model(n_features: int = 3, **changes: object) -> TableVae:
    """A model with weights of some size; self-masking ones rise by SLOPE a standard deviation."""
    settings = TableSettings(**{"decoder": "linear", "latent_size": 2, **changes})
    shares = torch.linspace(0.4, 0.8, n_features)
    model = build_table_vae(settings, shares, Units(np.zeros(n_features), np.ones(n_features)), None, seed=1)
    with torch.no_grad():
        if settings.missing == "self-masking":
            model.missing.slope.raw.fill_(SLOPE)
        model.likelihood.sd.raw.fill_(0.0)  # sd = log 2 + the floor
        for parameter in model.encoder.parameters():
            parameter.mul_(0.5)  # q is near the prior, so that importance samples of it will do
        decoder = model.network.network[0]
        decoder.weight.mul_(0.6)
        decoder.bias.copy_(torch.linspace(-0.5, 0.5, n_features))
    return model


def rows_of(table: np.ndarray) -> Rows:
    return Rows(torch.from_numpy(np.nan_to_num(table)).float(), torch.from_numpy(~np.isnan(table)).float())


def normal_of(model: TableVae) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of complete rows: W z + b + noise."""
    weight, bias, sd = model.linear_parts()
    return bias, weight @ weight.T + sd**2 * np.eye(len(bias))


def given(model: TableVae, row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of the missing values of a row given the observed ones."""
    mean, covariance = normal_of(model)
    o, m = ~np.isnan(row), np.isnan(row)
    gain = covariance[np.ix_(m, o)] @ np.linalg.inv(covariance[np.ix_(o, o)])
    return mean[m] + gain @ (row[o] - mean[o]), covariance[np.ix_(m, m)] - gain @ covariance[np.ix_(o, m)]


def log_joint(model: TableVae, row: np.ndarray) -> float:
    """Log p(x_obs, s) of a row with one missing value, by numerical integration over it."""
    mean, covariance = normal_of(model)
    o, m = ~np.isnan(row), np.isnan(row)
    bias = model.missing.item_bias.detach().numpy().astype(float)
    log_p = stats.multivariate_normal(mean[o], covariance[np.ix_(o, o)]).logpdf(row[o])
    log_p += np.log(expit(SLOPE * row[o] + bias[o])).sum()
    x, density = hidden_density(model, row, tilted=False)
    return float(log_p + np.log(np.trapezoid(density * expit(-SLOPE * x - bias[m]), x)))


def hidden_density(model: TableVae, row: np.ndarray, *, tilted: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Density of a row's one missing value, given the others and, if ``tilted``, that it is missing: grid, density."""
    mean, covariance = given(model, row)
    sd = float(np.sqrt(covariance[0, 0]))
    x = np.linspace(mean[0] - 9 * sd, mean[0] + 9 * sd, 20_001)
    density = stats.norm(mean[0], sd).pdf(x)
    if tilted:
        bias = model.missing.item_bias.detach().numpy().astype(float)[np.isnan(row)]
        density = density * expit(-SLOPE * x - bias)
    return x, density / np.trapezoid(density, x)
