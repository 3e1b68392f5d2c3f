"""The façade: fit a log, predict what people would have said."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from mnar_recsys.checks import check_same_length
from mnar_recsys.config import Settings, preset
from mnar_recsys.data import RatingLog, add_survey
from mnar_recsys.data.ids import as_id_array
from mnar_recsys.errors import ConfigError, DataError, ModelFolderError, NotFittedError
from mnar_recsys.files import write_text
from mnar_recsys.model.build import build_model
from mnar_recsys.model_card import model_card
from mnar_recsys.model_folder import (
    CHECKPOINT,
    FittedModel,
    fingerprint,
    read_model,
    write_data,
    write_draws,
    write_weights,
)
from mnar_recsys.prediction.conformal import ConformalIntervals
from mnar_recsys.prediction.pair_table import QUANTILES, pair_table
from mnar_recsys.prediction.predictions import UNKNOWN, Predictions
from mnar_recsys.prediction.predictor import Predictor
from mnar_recsys.resuming import prepare_folder, write_checkpoint
from mnar_recsys.rng import torch_seed
from mnar_recsys.training import BoundTerms, Trainer
from mnar_recsys.training.absorb import absorb
from mnar_recsys.training.mcmc import OnDraw, check_can_sample, sample_posterior
from mnar_recsys.training.without_selection import keep_if_no_worse_without

if TYPE_CHECKING:
    from mnar_recsys.prediction.factors import ImplicitFactors

OnStep = Callable[[Trainer, BoundTerms], None]


class MNARRecommender:
    """Debiased rating predictions from a self-selected log (not-MIWAE; Ipsen, Mattei & Frellsen 2021).

    Parameters
    ----------
    settings : Settings or str
        All settings, or the name of a preset (``"default"``, ``"yahoo-r3"``).
    **changes
        Single settings that differ, for example ``decoder="gaussian"`` or ``sign="free"``.

    Examples
    --------
    >>> log = RatingLog.read_csv("ratings.csv")                             # doctest: +SKIP
    >>> model = MNARRecommender().fit(log, seed=0)                          # doctest: +SKIP
    >>> mean = model.predict(users, items)                                  # doctest: +SKIP
    >>> low, high = model.predict_quantiles(users, items, (0.05, 0.95))     # doctest: +SKIP
    """

    def __init__(self, settings: Settings | str = "default", **changes: Any) -> None:
        chosen = preset(settings) if isinstance(settings, str) else settings
        if not isinstance(chosen, Settings):
            raise ConfigError(
                f"settings must be Settings or the name of a preset; found {type(chosen).__name__}. Give single "
                "settings by name: MNARRecommender(decoder='ordinal'), or MNARRecommender(**settings)"
            )
        self.settings = chosen.replace(changes)
        self._fitted: FittedModel | None = None
        self._predictor: Predictor | None = None

    def fit(
        self,
        log: RatingLog,
        *,
        labels: RatingLog | None = None,
        seed: int = 0,
        folder: str | Path | None = None,
        resume: bool = False,
        on_step: OnStep | None = None,
        on_draw: OnDraw | None = None,
    ) -> Self:
        """Fit the joint model of ratings and mask.

        Parameters
        ----------
        log : RatingLog
            Self-selected ratings.
        labels : RatingLog, optional
            Ratings of pairs that were drawn at random, if there are some: they say what people think of what they do
            not rate. Never those that the fit will be judged on.
        seed : int
            Fixes starting weights, batches, noise and held-out users.
        folder : path, optional
            Write the model here, with a checkpoint at each look at the held-out users. Must not exist yet, or be
            empty, unless ``resume``.
        resume : bool
            Go on from the checkpoint in ``folder``; needs the same ratings, settings and seed. The result is the
            one of an uninterrupted run, bit for bit on the CPU. Chains that were interrupted begin anew.
        on_step : callable, optional
            Called after each step with the trainer and the terms of the bound.
        on_draw : callable, optional
            Called after each draw of ``inference="mcmc"``, with where the sampling stands.

        Raises
        ------
        ConfigError, DataError
            If the settings do not fit the log, or it is too large to be sampled.
        ModelFolderError
            If the folder is in use, or cannot be resumed from.
        DivergedError
            If the bound stops being finite; the folder keeps the last checkpoint.
        """
        path = None if folder is None else Path(folder)
        if labels is not None:
            log = add_survey(log, labels)
        settings = self.settings.resolve_for(log)
        is_sampled = settings.training.inference == "mcmc"
        if is_sampled:
            check_can_sample(log)
        print_of = fingerprint(log, settings, seed)
        if path is not None and resume and not (path / CHECKPOINT).exists():
            return self._take_finished(path, print_of)
        model = build_model(settings.model, log, torch_seed(seed, "weights"))
        trainer = Trainer(model, log, settings, seed=seed)
        if path is not None:
            prepare_folder(path, trainer, print_of, resume=resume)

        def write(at: Trainer) -> None:
            if path is not None and at.workers.is_first:
                write_checkpoint(path, at, log, settings, seed)

        trainer.run(on_step, write)
        if self.settings.model.missing == "auto" and settings.checks_selection(log):
            again = build_model(settings.model, log, torch_seed(seed, "weights"))
            keep_if_no_worse_without(trainer, again, settings, on_step)
        draws = None
        if is_sampled:
            draws = sample_posterior(trainer, on_draw)
            absorb(trainer, draws)
        history = tuple(trainer.progress.history)
        self._fitted = FittedModel(settings, seed, log, model, history, finished=True, draws=draws)
        self._predictor = _predictor(self._fitted)
        if path is not None and trainer.workers.is_first:
            self.save(path)
            (path / CHECKPOINT).unlink(missing_ok=True)
        return self

    def _take_finished(self, path: Path, print_of: str) -> Self:
        """Resume a run that had already ended: its folder has no checkpoint any more."""
        fitted = read_model(path)
        if not fitted.finished or fingerprint(fitted.log, fitted.settings, fitted.seed) != print_of:
            raise ModelFolderError(
                f"{path}: no checkpoint of a run with these ratings, settings and seed; train without --resume"
            )
        self._fitted, self._predictor = fitted, _predictor(fitted)
        return self

    @property
    def fitted(self) -> FittedModel:
        """The fitted parts; raises NotFittedError before ``fit`` or ``load``."""
        if self._fitted is None:
            raise NotFittedError("the recommender is not fitted; call fit(log) or MNARRecommender.load(folder) first")
        return self._fitted

    @property
    def predictor(self) -> Predictor:
        """Posterior predictions by index; raises NotFittedError before ``fit`` or ``load``."""
        if self._predictor is None:
            raise NotFittedError("the recommender is not fitted; call fit(log) or MNARRecommender.load(folder) first")
        return self._predictor

    def predict(self, users: ArrayLike, items: ArrayLike) -> NDArray[np.float32]:
        """Return the posterior mean of each pair's rating: ids (n,), (n,) -> (n,) in rating points."""
        return self.predict_full(users, items).mean

    def predict_quantiles(
        self, users: ArrayLike, items: ArrayLike, probabilities: Sequence[float]
    ) -> NDArray[np.float32]:
        """Return quantiles of each pair's rating: (q, n) in rating points; on a level scale, levels."""
        if not all(0 < p < 1 for p in probabilities):
            raise ConfigError(f"probabilities must lie between 0 and 1; found {tuple(probabilities)}")
        return self.predict_full(users, items, probabilities=probabilities).quantiles

    def predict_levels(self, users: ArrayLike, items: ArrayLike) -> NDArray[np.float32]:
        """Return the probability of each rating level: (n, R); raises ConfigError if the scale has no levels."""
        levels = self.predict_full(users, items, levels=True).levels
        if levels is None:
            raise ConfigError("the scale has no levels")
        return levels

    def predict_full(
        self, users: ArrayLike, items: ArrayLike, *, probabilities: Sequence[float] = (), levels: bool = False
    ) -> Predictions:
        """Return everything known of pairs of original ids; ids outside the log get the prior, flagged ``cold``.

        Raises
        ------
        DataError
            If users and items differ in length, or ids are of another kind than the log's.
        ConfigError
            If level probabilities are asked for on a scale without levels.
        """
        log = self.fitted.log
        if levels and log.scale.levels is None:
            raise ConfigError(f"level probabilities need rating levels, but the scale is {log.scale.describe()}")
        user, item = log.users.index(users), log.catalogue.index(items)
        check_same_length(users=user, items=item)
        return self.predictor.predict(user, item, probabilities=probabilities, levels=levels)

    def predict_table(
        self, users: ArrayLike, items: ArrayLike, *, levels: bool = False, propensity: bool = False
    ) -> pa.Table:
        """Return the columns ``user,item,mean,sd,mean_se,q05,q50,q95,cold`` (and ``p1..pR``, ``propensity``) of pairs.

        An Arrow table: ``.to_pandas()``, ``polars.from_arrow(...)``, or as it is for DuckDB. Raises as `predict_full`.
        """
        log = self.fitted.log
        user_ids, item_ids = as_id_array(users, "user"), as_id_array(items, "item")
        found = self.predict_full(user_ids, item_ids, probabilities=QUANTILES, levels=levels)
        return pair_table(user_ids, item_ids, found, log, levels=levels, propensity=propensity)

    def conformalize(self, labels: RatingLog, coverage: float = 0.9, *, by_user: bool = False) -> ConformalIntervals:
        """Return intervals that hold an unrated pair's rating with this probability or more, whatever the model.

        ``labels`` are randomly collected ratings that were not trained on; see ``ConformalIntervals.calibrate``.
        """
        return ConformalIntervals.calibrate(self.predictor, labels, coverage, by_user=by_user)

    def condition_on(self, log: RatingLog) -> Self:
        """Return this model conditioned on other ratings, for new users without retraining.

        The log's items must be among the model's and its scale the model's.
        """
        fitted = self.fitted
        if log.scale != fitted.log.scale:
            raise DataError(
                f"the new ratings' scale is {log.scale.describe()}, the model's {fitted.log.scale.describe()}; "
                "read them with the model's scale"
            )
        known = log.reindex(log.users, fitted.log.catalogue)
        other = type(self)(fitted.settings)
        other._fitted = replace(fitted, log=known, draws=None if fitted.draws is None else fitted.draws.of_parameters())
        trained = self.predictor.trained_items
        other._predictor = _predictor(other._fitted, trained)
        return other

    def to_implicit(self, *, num_threads: int = 1) -> "ImplicitFactors":
        """Return the users' and items' factors as a recommender of ``implicit``: fast top-n lists, similar items.

        The lists are those of the posterior mean of each user's taste, which differ a little from those of the
        predictions; see ``linear_factors`` for what is left out. Raises ConfigError if the decoder has no factors.
        """
        from mnar_recsys.prediction.factors import ImplicitFactors, linear_factors  # implicit: only where it is wanted

        return ImplicitFactors(linear_factors(self.predictor), num_threads=num_threads)

    def save(self, folder: str | Path) -> None:
        """Write the model folder; each file whole or not at all."""
        fitted, path = self.fitted, Path(folder)
        print_of = fingerprint(fitted.log, fitted.settings, fitted.seed)
        write_data(path, fitted.log, fitted.settings, fitted.seed)
        write_draws(path, fitted.draws, print_of)
        write_weights(path, fitted.model.state_dict(), fitted.history, print_of, finished=fitted.finished)
        write_text(path / "card.md", model_card(fitted))

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Load a model folder; raises ModelFolderError with what is wrong with it."""
        return cls.from_fitted(read_model(folder))

    @classmethod
    def from_fitted(cls, fitted: FittedModel) -> Self:
        """Return the recommender of parts that were fitted elsewhere."""
        recommender = cls(fitted.settings)
        recommender._fitted, recommender._predictor = fitted, _predictor(fitted)
        return recommender


def _predictor(fitted: FittedModel, trained_items: NDArray[np.bool_] | None = None) -> Predictor:
    return Predictor(fitted.model, fitted.log, seed=fitted.seed, posterior=fitted.draws, trained_items=trained_items)


__all__ = ["UNKNOWN", "MNARRecommender", "Predictions"]
