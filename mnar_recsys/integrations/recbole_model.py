"""not-MIWAE as a model of RecBole: trained by its Trainer, scored by its Evaluator."""

from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from recbole.data.dataloader.user_dataloader import UserDataLoader
from recbole.model.abstract_recommender import GeneralRecommender
from recbole.utils import InputType
from torch import Tensor

from mnar_recsys.data import RatingLog, Vocabulary
from mnar_recsys.data.ids import IdArray, kind_of_text
from mnar_recsys.errors import ConfigError, DataError
from mnar_recsys.model.batch import make_batch
from mnar_recsys.model.build import build_model
from mnar_recsys.model_folder import FittedModel
from mnar_recsys.prediction import UNKNOWN
from mnar_recsys.recommender import MNARRecommender
from mnar_recsys.rng import torch_seed
from mnar_recsys.training.step import Stepper
from mnar_recsys.training.workers import join_workers


class RecBoleMNAR(GeneralRecommender):  # type: ignore[misc]
    """A ``GeneralRecommender`` whose loss is that of ``MNARRecommender``, and whose scores are its ratings.

    The loss of a batch is that of its users with all their training ratings, in nats a user; ``by_user`` gives batches
    in which each user comes once an epoch. What RecBole's Trainer does not do, it goes without: averaged weights, a
    step size of its own for the slopes, held-out users, the check against a fit without selection.

    RecBole's configuration says how: ``mnar_settings``, a dict of settings as of ``MNARRecommender``; ``mnar_scale``,
    the rating scale as ``[1, 5]`` or ``[0.5, 5, 0.5]``, else inferred; ``seed``. Ratings must reach the model as they
    are: leave ``threshold`` and ``normalize_all`` unset (null).

    Parameters
    ----------
    config, dataset
        RecBole's, the data set that of the training data.
    recommender : MNARRecommender, optional
        A fitted one, to be scored by RecBole or trained further; it shares its weights with this model. Users and items
        are matched by their original ids; those it does not know are cold.

    Raises
    ------
    DataError
        If the data set has no rating field, or its ratings are no log (see ``RatingLog.from_arrays``).
    ConfigError
        If a setting does not fit.
    """

    input_type = InputType.POINTWISE

    def __init__(self, config: Any, dataset: Any, recommender: MNARRecommender | None = None) -> None:
        super().__init__(config, dataset)
        if recommender is None:
            recommender = _untrained(config, log_of(config, dataset))
        fitted = recommender.fitted
        self.mnar = fitted.model.to(self.device)
        self.recommender = MNARRecommender.from_fitted(fitted)
        log = fitted.log
        self._rows = _places(log.users, dataset, self.USER_ID)
        self._columns = _places(log.catalogue, dataset, self.ITEM_ID)
        self._has_ratings = np.append(np.diff(log.indptr) > 0, False)  # the last for -1, who is unknown
        n_users = int(self._has_ratings.sum())
        self._stepper = Stepper(
            self.mnar, log, fitted.settings, n_users=n_users, seed=fitted.seed, workers=join_workers()
        )
        self._step = 0

    def calculate_loss(self, interaction: Any) -> Tensor:
        """Return the loss of the users of a batch, each counted once; 0 where none of them has ratings."""
        if self.recommender.fitted.draws is not None:
            raise ConfigError("a sampled posterior has no loss to train by; fit with inference 'variational'")
        users = np.unique(self._rows[interaction[self.USER_ID].cpu().numpy()])
        users = users[self._has_ratings[users]]
        if not len(users):
            return torch.stack([weight.sum() for weight in self.parameters()]).sum() * 0.0
        self._step += 1
        return self._stepper.loss(self._step, make_batch(self.recommender.fitted.log, users, self.device)).loss

    def predict(self, interaction: Any) -> Tensor:
        """Return the posterior mean of each pair's rating, (n,), in rating points, as ``recommender.predict`` does."""
        users, items = (interaction[field].cpu().numpy() for field in (self.USER_ID, self.ITEM_ID))
        return self._means(self._rows[users], self._columns[items])

    def full_sort_predict(self, interaction: Any) -> Tensor:
        """Return the same for each user of the batch with all items, (B * n_items,); the padding gets the lowest."""
        users, items = self._rows[interaction[self.USER_ID].cpu().numpy()], self._columns[1:]
        means = self._means(np.repeat(users, len(items)), np.tile(items, len(users)))
        low = self.recommender.fitted.log.scale.low
        return torch.nn.functional.pad(means.view(len(users), -1), (1, 0), value=low).flatten()

    def train(self, mode: bool = True) -> Self:
        """Go over to training or from it; what was drawn of the weights for the last step is then put back."""
        if not mode:
            self.mnar.clear_weights()
        super().train(mode)
        return self

    def _means(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(self.recommender.predictor.predict(rows, columns).mean).to(self.device)


def by_user(config: Any, train_data: Any) -> Any:
    """Return a loader of the users of RecBole's training data, each once an epoch, ``train_batch_size`` at a time.

    The loader that RecBole gives any model goes by ratings: who has many comes often.
    """
    return UserDataLoader(config, train_data.dataset, None, shuffle=True)


def log_of(config: Any, dataset: Any) -> RatingLog:
    """Return the ratings of a data set of RecBole as a log with the original ids, whole numbers where all are.

    Raises
    ------
    DataError
        If it has no rating field, or as ``RatingLog.from_arrays``.
    """
    rating = config["RATING_FIELD"]
    if rating not in dataset.inter_feat:
        raise DataError(
            f"RecBole's data set needs the field '{rating}'; found {', '.join(dataset.inter_feat.columns)}. "
            "Put it into load_col, and leave threshold unset"
        )
    users, items = (_ids(dataset, field) for field in (dataset.uid_field, dataset.iid_field))
    # RecBole's own ids begin with 1; 0 is its padding.
    rows, columns, ratings = (
        dataset.inter_feat[field].numpy() for field in (dataset.uid_field, dataset.iid_field, rating)
    )
    # RecBole evaluates what looks like Python in its settings: "1,5" would come as a tuple, too.
    scale = None if config["mnar_scale"] is None else ",".join(map(str, config["mnar_scale"]))
    return RatingLog.from_arrays(
        users[rows - 1], items[columns - 1], ratings, scale=scale, user_ids=users, catalogue=items
    )


def _places(known: Vocabulary, dataset: Any, field: str) -> NDArray[np.int64]:
    """Return the index in a vocabulary of each of RecBole's ids, UNKNOWN for those it lacks and for the padding, 0."""
    return np.append(UNKNOWN, known.index(_ids(dataset, field, text=known.is_text)))


def _ids(dataset: Any, field: str, *, text: bool | None = None) -> IdArray:
    """Return the original ids of a field in RecBole's order, without its padding; as text, numbers, or as they are."""
    tokens = np.asarray(dataset.field2id_token[field][1:], dtype=object)
    is_number = kind_of_text(tokens)[0] == "integer"
    if text is None:
        text = not is_number
    if not text and not is_number:
        raise DataError(f"RecBole's {field} must be whole numbers, as the recommender's; found {tokens[0]!r}")
    return tokens if text else tokens.astype(np.int64)


def _untrained(config: Any, log: RatingLog) -> MNARRecommender:
    settings = MNARRecommender(**{"inference": "variational", **(config["mnar_settings"] or {})}).settings
    if settings.training.inference == "mcmc":
        raise ConfigError("RecBole's Trainer cannot sample a posterior; leave inference out of mnar_settings")
    settings, seed = settings.resolve_for(log), int(config["seed"])
    model = build_model(settings.model, log, torch_seed(seed, "weights"))
    return MNARRecommender.from_fitted(FittedModel(settings, seed, log, model, (), finished=True))
