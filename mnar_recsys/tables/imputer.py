"""MNARImputer: not-MIWAE behind scikit-learn's conventions."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils import check_random_state, metadata_routing
from sklearn.utils.validation import check_is_fitted, validate_data

from mnar_recsys.config.tables import LogOdds, TableMissing, TableSettings
from mnar_recsys.errors import ConfigError, DataError
from mnar_recsys.prediction.cells import Estimand
from mnar_recsys.tables.build import build_table_vae
from mnar_recsys.tables.imputation import RowPosterior
from mnar_recsys.tables.stacked import OnStep, Rows, train
from mnar_recsys.tables.standardise import Units
from mnar_recsys.tables.table_vae import TableVae


class MNARImputer(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Impute a table whose values are missing because of what they are (not-MIWAE; Ipsen, Mattei & Frellsen 2021).

    The distribution of the data and the mechanism that hides some of it are fitted together. Which mechanism is assumed
    decides the result, and the table alone cannot tell (section 3.1 of the paper): state what is known.

    Parameters
    ----------
    decoder, encoder, likelihood, posterior, missing, ...
        Every setting of ``mnar_recsys.config.tables.TableSettings`` by its name and with its default.
    log_odds : callable, optional
        The mechanism, for ``missing="known"``: a function of torch that takes rows (..., P) in the table's units to
        the log-odds that each of their values is observed. It may look at each value only.
    standardise : bool
        Fit in units of each feature's observed mean and standard deviation. ``False`` for images in [0, 1] and for
        features that are 0 or 1.
    n_draws : int
        Importance samples of a row in ``transform``, ``sample`` and ``score``.
    statistic : "mean" or "median"
        What ``transform`` puts in: the least squared or the least absolute error.
    estimand : "conditional" or "paper"
        Whether a value's own being missing counts in its mean (exact), or as the paper does it, eq. 18.
    random_state : int, RandomState or None
        Fixes weights, batches and noise.

    Attributes
    ----------
    n_features_in_, feature_names_in_
        As in scikit-learn.
    bound_ : ndarray of shape (n_models,)
        Mean bound on log p(x_obs, s) of a row of the last batch, in nats.

    Examples
    --------
    >>> imputer = MNARImputer(decoder="linear", sign="negative", random_state=0)    # doctest: +SKIP
    >>> complete = imputer.fit_transform(table)                                     # doctest: +SKIP
    """

    # What is called while fitting is no data to be routed through a pipeline.
    __metadata_request__fit: ClassVar[dict[str, str]] = {"on_step": metadata_routing.UNUSED}

    def __init__(
        self,
        *,
        decoder: Literal["mlp", "linear", "conv"] = "mlp",
        likelihood: Literal["gaussian", "student-t", "bernoulli"] = "gaussian",
        encoder: Literal["mlp", "set", "conv"] = "mlp",
        mask_input: bool = True,
        posterior: Literal["gaussian", "student-t"] = "gaussian",
        missing: TableMissing = "self-masking",
        sign: Literal["positive", "negative", "free"] = "free",
        estimator: Literal["auto", "marginal", "sampled"] = "auto",
        latent_size: int | None = None,
        hidden: Sequence[int] = (128, 128),
        channels: Sequence[int] = (64, 128, 256),
        image_shape: tuple[int, int] | None = None,
        least_sd: float = 1e-3,
        samples: int = 20,
        batch_size: int = 64,
        max_iter: int = 5_000,
        learning_rate: float = 1e-3,
        n_models: int = 1,
        log_odds: LogOdds | None = None,
        standardise: bool = True,
        n_draws: int = 1_000,
        statistic: Literal["mean", "median"] = "mean",
        estimand: Literal["conditional", "paper"] = "conditional",
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.decoder = decoder
        self.likelihood = likelihood
        self.encoder = encoder
        self.mask_input = mask_input
        self.posterior = posterior
        self.missing = missing
        self.sign = sign
        self.estimator = estimator
        self.latent_size = latent_size
        self.hidden = hidden
        self.channels = channels
        self.image_shape = image_shape
        self.least_sd = least_sd
        self.samples = samples
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.learning_rate = learning_rate
        self.n_models = n_models
        self.log_odds = log_odds
        self.standardise = standardise
        self.n_draws = n_draws
        self.statistic = statistic
        self.estimand = estimand
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: Any = None, *, on_step: OnStep | None = None) -> Self:  # noqa: ARG002
        """Fit the joint model of values and mask.

        Parameters
        ----------
        X : array-like of shape (n_rows, n_features)
            NaN where a value is missing.
        y : None
            Ignored.
        on_step : callable, optional
            Called every 100 steps with their number and the bounds (n_models,), in nats a row.

        Raises
        ------
        ConfigError
            If a setting is out of range, or two do not fit each other.
        DataError
            If a feature has no observed value, or a Bernoulli one is neither 0 nor 1.
        DivergedError
            If the bound stops being finite.
        """
        settings = self.settings
        table = validate_data(self, X, dtype=np.float64, ensure_all_finite="allow-nan", ensure_min_samples=2)
        self._check(table)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        self.seeds_ = [seed + number for number in range(settings.n_models)]
        self._units = Units.of(table, standardise=self.standardise)
        rows = self._rows(table)
        share = (rows.observed.sum(0) + 0.5) / (len(table) + 1)
        self._models = [build_table_vae(settings, share, self._units, self.log_odds, seed) for seed in self.seeds_]
        self._reach = (float(rows.values.min()), float(rows.values.max()))

        def look(step: int, bound: NDArray[np.float64]) -> None:
            self.bound_ = bound
            if on_step is not None:
                on_step(step, bound)

        train(self._models, rows, settings, self.seeds_, on_step=look)
        self.n_iter_ = settings.max_iter
        return self

    def transform(self, X: ArrayLike) -> Any:
        """Return the table with its missing values replaced, (n_rows, n_features): a data frame if X is one.

        Rows that were not in ``fit`` need no retraining. With several models, the mean of their imputations.
        """
        table = self._validated(X)
        each = self._impute_each(table)
        return _like(X, np.where(np.isnan(table), each.mean(0), table))

    def transform_each(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return what each model would put in: (n_models, n_rows, n_features)."""
        table = self._validated(X)
        return np.where(np.isnan(table), self._impute_each(table), table)

    def sample(self, X: ArrayLike, n: int = 20) -> NDArray[np.float64]:
        """Return ``n`` multiple imputations, (n, n_rows, n_features), spread over the models.

        Each is a joint draw from p(x_mis | x_obs, s) under the fitted parameters.
        """
        if n < 1:
            raise ConfigError(f"the number of imputations must be at least 1; found {n}")
        table = self._validated(X)
        shares = [len(part) for part in np.array_split(np.arange(n), len(self._models))]
        drawn = [posterior.impute(k) for posterior, k in zip(self._posteriors(table), shares, strict=True) if k]
        return np.where(np.isnan(table), self._units.to_table(np.concatenate(drawn)), table)

    def score_samples(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the bound on log p(x_obs, s) of each row with ``n_draws`` samples, in nats: (n_rows,).

        Densities are those of the table's own units; of several models, their mean.
        """
        return np.asarray(self._bounds(X, of_mask=True).mean(0))

    def score(self, X: ArrayLike, y: Any = None) -> float:  # noqa: ARG002
        """Return the mean of ``score_samples``: higher is better."""
        return float(self.score_samples(X).mean())

    def linear_moments(self) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """Return each model's mean (P,) and covariance (P, P) of complete rows, in the table's units.

        Raises ConfigError unless the model is linear and Gaussian: W z + b + noise has covariance W W' + sd^2 I (PPCA).
        """
        if (self.decoder, self.likelihood) != ("linear", "gaussian"):
            raise ConfigError("moments in closed form need decoder='linear' and likelihood='gaussian'")
        centre, unit = self._units.centre, self._units.unit
        found = []
        for weight, bias, sd in (model.linear_parts() for model in self.models):
            covariance = weight @ weight.T + sd**2 * np.eye(len(bias))
            found.append((centre + unit * bias, covariance * np.outer(unit, unit)))
        return found

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    @property
    def models(self) -> Sequence[TableVae]:
        """The fitted models, one for each of ``n_models``."""
        check_is_fitted(self, "n_iter_")
        return self._models

    def rows(self, X: ArrayLike) -> Rows:
        """Return rows in the units of the models."""
        return self._rows(self._validated(X))

    def log_likelihoods(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return each model's bound on log p(x_obs) of each row, the mask left out: (n_models, n_rows).

        Of complete rows that were not fitted to, ``complete_log_likelihood`` gives the better one.
        """
        return self._bounds(X, of_mask=False)

    def _bounds(self, X: ArrayLike, *, of_mask: bool) -> NDArray[np.float64]:
        table = self._validated(X)
        bounds = np.stack([posterior.bounds(of_mask=of_mask) for posterior in self._posteriors(table)])
        # A density per unit of the model is one per ``unit`` of the table.
        return np.asarray(bounds - (~np.isnan(table)) @ np.log(self._units.unit))

    @property
    def settings(self) -> TableSettings:
        """The settings, checked; raises ConfigError if they do not fit each other."""
        if (self.missing == "known") != (self.log_odds is not None):
            raise ConfigError("log_odds must be given with missing='known', and only then")
        for name, allowed in (("statistic", ("mean", "median")), ("estimand", ("conditional", "paper"))):
            if getattr(self, name) not in allowed:
                raise ConfigError(f"{name} must be one of {', '.join(allowed)}; found {getattr(self, name)!r}")
        return TableSettings.checked(**{name: getattr(self, name) for name in TableSettings.model_fields})

    def _check(self, table: NDArray[np.float64]) -> None:
        names = getattr(self, "feature_names_in_", np.arange(table.shape[1]))
        empty = np.flatnonzero(np.isnan(table).all(0))
        if len(empty):
            raise DataError(f"feature {names[empty[0]]!s} has no observed value ({len(empty)} such); drop it")
        if self.image_shape is not None and np.prod(self.image_shape) != table.shape[1]:
            raise DataError(
                f"image_shape {self.image_shape} needs {np.prod(self.image_shape)} features; found {table.shape[1]}"
            )
        if self.likelihood == "bernoulli":
            if self.standardise:
                raise ConfigError("likelihood='bernoulli' needs standardise=False")
            odd = ~(np.isnan(table) | np.isin(table, (0, 1))).all(0)
            if odd.any():
                raise DataError(f"feature {names[np.argmax(odd)]!s} has values other than 0 and 1; choose 'gaussian'")

    def _validated(self, X: ArrayLike) -> NDArray[np.float64]:
        check_is_fitted(self, "n_iter_")
        return np.asarray(validate_data(self, X, dtype=np.float64, ensure_all_finite="allow-nan", reset=False))

    def _rows(self, table: NDArray[np.float64]) -> Rows:
        observed = torch.from_numpy(~np.isnan(table)).float()
        return Rows(torch.from_numpy(self._units.to_model(table)), observed)

    def _posteriors(self, table: NDArray[np.float64]) -> list[RowPosterior]:
        rows = self._rows(table)
        return [
            RowPosterior(model, rows, draws=self.n_draws, seed=seed, reach=self._reach)
            for model, seed in zip(self._models, self.seeds_, strict=True)
        ]

    def _impute_each(self, table: NDArray[np.float64]) -> NDArray[np.float64]:
        estimand = Estimand(self.estimand)
        if self.statistic == "median":
            imputed = [posterior.quantiles((0.5,))[0] for posterior in self._posteriors(table)]
        else:
            imputed = [posterior.mean(estimand) for posterior in self._posteriors(table)]
        return self._units.to_table(np.stack(imputed))


def _like(X: ArrayLike, values: NDArray[np.float64]) -> Any:
    """Return values as a data frame where the table was one."""
    return pd.DataFrame(values, index=X.index, columns=X.columns) if isinstance(X, pd.DataFrame) else values
