"""Side information: prior means from features, for known and for new users, and models that ignore it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from factories import log_of, random_matrix, tiny_model

from mnar_recsys.data import FeatureTable, RatingLog
from mnar_recsys.model.batch import make_batch
from mnar_recsys.model.features import FeatureEffect, feature_weights
from mnar_recsys.prediction import UNKNOWN, Predictor


@pytest.fixture
def log() -> RatingLog:
    rng = np.random.default_rng(0)
    return log_of(random_matrix(9, 5, seed=2)).with_features(
        user_features=FeatureTable.from_array(rng.normal(size=(9, 3)) * [1, 10, 100] + 5),
        item_features=FeatureTable.from_array(rng.integers(0, 2, size=(5, 2))),
    )


def test_an_effect_is_linear_in_standardised_features() -> None:
    values = np.array([[0.0, 3.0, 7.0], [2.0, 3.0, 9.0], [4.0, 3.0, 2.0]], dtype=np.float32)  # one is constant
    effect = FeatureEffect(FeatureTable.from_array(values), (2,))
    assert (effect(torch.from_numpy(values)) == 0).all()
    with torch.no_grad():
        effect.weight.copy_(torch.tensor([[1.0, 2.0], [5.0, 5.0], [-1.0, 0.5]]))
    spread = np.where(values.std(0) > 0, values.std(0), 1)
    standard = (values - values.mean(0)) / spread / np.sqrt(3)
    np.testing.assert_allclose(
        effect(torch.from_numpy(values)).detach(), standard @ [[1, 2], [5, 5], [-1, 0.5]], rtol=1e-5, atol=1e-6
    )
    unknown = torch.full((1, 3), torch.nan)
    np.testing.assert_array_equal(effect(unknown).detach(), 0)


def test_features_that_shift_a_model_are_weights_that_are_shifted(log: RatingLog) -> None:
    """A model whose maps are not 0 is one without features whose own weights were moved by as much."""
    settings = {"user_activity": True, "exposure_size": 2, "exposure_sees_taste": True, "missing": "shared"}
    model = tiny_model(log, seed=3, **settings)
    moved = tiny_model(replace(log, user_features=None, item_features=None), seed=3, **settings)
    moved.load_state_dict({name: value for name, value in model.state_dict().items() if "effect" not in name})
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in feature_weights(model):
            weight.normal_(generator=generator)
        model.user_effect.weight.zero_()  # a latent's prior mean is no weight; see the next test
        model.encoder.user_effect.weight.zero_()
        moved.decoder.weight += model.decoder.weight_effect.of_items().transpose(0, 1)
        moved.decoder.bias += model.decoder.bias_effect.of_items().T
        moved.exposure.weight += model.exposure.effect.of_items()
        moved.missing.item_bias += model.missing.effect.of_items()
        moved.encoder.item_embedding += model.encoder.item_effect.of_items()
    noise = torch.randn(4, 9, model.latent_size, generator=generator)
    found = []
    for one, data in ((model, log), (moved, replace(log, user_features=None, item_features=None))):
        weights, _ = one.log_weights(make_batch(data, np.arange(9)), noise, one.estimator(marginal=True))
        found.append(weights.total)
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-4)


def test_the_prior_mean_of_a_latent_moves_it_and_not_its_density(log: RatingLog) -> None:
    model = tiny_model(log, seed=3)
    batch, noise = make_batch(log, np.arange(9)), torch.randn(4, 9, 1, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain = model.sample_posterior(batch, noise)
        model.user_effect.weight.normal_(generator=torch.Generator().manual_seed(1))
        shifted = model.sample_posterior(batch, noise)
    torch.testing.assert_close(shifted[0] - plain[0], model.prior_mean(batch).expand(4, -1, -1), rtol=1e-4, atol=1e-6)
    assert (shifted[0] != plain[0]).all()
    torch.testing.assert_close(shifted[1:], plain[1:])


def test_a_person_without_ratings_is_predicted_from_features(log: RatingLog) -> None:
    model = tiny_model(log, seed=3)
    with torch.no_grad():
        model.user_effect.weight.fill_(3.0)
        model.decoder.weight[:] = torch.linspace(-2, 2, 3)[:, None, None]  # z lifts every rating
    silent = log.select_ratings(log.rows > 1)
    predictor = Predictor(model, silent, draws=512)
    mean = predictor.predict(np.array([0, 1, UNKNOWN]), np.zeros(3, dtype=int)).mean
    # A stranger is an average person: between the two, whose features lie on either side of it, or beyond both.
    position = model.prior_mean(make_batch(log, np.arange(2))).flatten().tolist()
    order = np.argsort([*position, 0.0])
    assert (np.diff(mean[order]) > 0).all()


def test_without_features_or_told_to_ignore_them_nothing_is_there(log: RatingLog) -> None:
    bare = tiny_model(replace(log, user_features=None, item_features=None))
    deaf = tiny_model(log, side_information=False)
    assert not list(feature_weights(bare))
    assert bare.state_dict().keys() == deaf.state_dict().keys()
    batch = make_batch(log, np.arange(9))
    assert deaf.prior_mean(batch) == 0.0
    assert len(list(feature_weights(tiny_model(log, exposure_size=1)))) == 7


@pytest.mark.parametrize("adjust", [True, False])
def test_a_mechanism_that_is_given_stays_as_given(log: RatingLog, adjust: bool) -> None:
    given = ((1.0, 0.1), (3.0, 0.4))
    model = tiny_model(log, missing="known", known_propensities=given, known_adjust=adjust)
    assert (model.missing.effect is not None) == adjust
