"""Settings: presets, validation, changes by name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnar_recsys.config import PRESETS, SAMPLED_CELLS, ModelConfig, Settings, TrainingConfig, preset
from mnar_recsys.errors import ConfigError


def test_yahoo_r3_preset_is_appendix_a3() -> None:
    settings = preset("yahoo-r3")
    model, training = settings.model, settings.training
    assert (model.embedding_size, model.code_size, model.latent_size) == (20, 50, 30)
    assert (training.samples, training.batch_size, training.learning_rate) == (20, 100, 1e-3)
    assert (training.max_steps, training.stop) == (10_000, "never")
    assert (model.decoder, model.missing, model.sign, model.estimator) == ("gaussian", "shared", "free", "sampled")
    assert (model.posterior_scale, model.gumbel_temperature, model.user_activity) == ("shared", 0.5, False)
    assert (model.exposure_size, model.exposure_sees_taste) == (0, False)
    assert (model.item_weights, model.weight_prior_sd) == ("point", None)
    assert (model.bias_prior_sd, model.exposure_prior_sd) == (None, None)


def test_the_scale_decides_what_is_left_open() -> None:
    def decided(has_levels: bool, **chosen: str) -> tuple[str, str]:
        model = ModelConfig.model_validate(chosen).resolve(has_levels=has_levels, n_ratings=50_000, all_items=True)
        return model.decoder, model.missing

    assert decided(True) == ("ordinal", "per-level")
    assert decided(False) == ("gaussian", "shared")
    assert decided(True, decoder="gaussian") == ("gaussian", "shared")
    assert decided(True, decoder="categorical") == ("categorical", "per-level")
    assert decided(False, missing="per-item") == ("gaussian", "per-item")
    assert decided(True, missing="ignorable") == ("ordinal", "ignorable")


def test_unknown_preset_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"unknown preset 'yahoo'; known presets: default, "):
        preset("yahoo")


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_settings_survive_json(name: str) -> None:
    settings = preset(name)
    assert Settings.from_dict(settings.model_dump(mode="json")) == settings


def test_known_propensities_survive_json() -> None:
    points = ((1.0, 0.1), (5.0, 0.4))
    settings = Settings(model=ModelConfig(missing="known", known_propensities=points))
    assert Settings.from_dict(settings.model_dump(mode="json")) == settings


def test_replace_finds_a_field_wherever_it_lives_and_parses_text() -> None:
    changed = Settings().replace({"latent_size": "7", "learning_rate": "0.5", "user_activity": "false", "samples": 3})
    assert (changed.model.latent_size, changed.model.user_activity) == (7, False)
    assert (changed.training.learning_rate, changed.training.samples) == (0.5, 3)
    assert Settings().replace({}) == Settings()


def test_no_two_settings_share_a_name() -> None:
    assert not set(ModelConfig.model_fields) & set(TrainingConfig.model_fields)


@pytest.mark.parametrize("part", [ModelConfig, TrainingConfig])
def test_every_field_says_what_it_does(part: type[ModelConfig] | type[TrainingConfig]) -> None:
    assert all(field.description for field in part.model_fields.values())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"latnet_size": 3}, "unknown setting 'latnet_size'; did you mean latent_size"),
        ({"latent_size": 0}, "setting latent_size: .*greater than or equal to 1; found 0"),
        ({"decoder": "poisson"}, "setting decoder: .*found 'poisson'"),
        ({"learning_rate": "fast"}, "setting learning_rate: expected 'auto' or a number; found 'fast'"),
        ({"learning_rate": -1}, "setting learning_rate: expected 'auto' or greater than 0; found -1"),
        ({"evaluate_every": 0.5}, "setting evaluate_every: expected 'auto' or a whole number; found 0.5"),
        ({"missing": "known"}, "known_propensities go with missing 'known'"),
        ({"known_propensities": ((1, 0.5), (2, 0.5))}, "known_propensities go with missing 'known'"),
        ({"missing": "known", "known_propensities": ((1, 0.0), (2, 0.5))}, "strictly between 0 and 1; found 0"),
        ({"missing": "known", "known_propensities": ((1, 0.5),)}, "two or more different ratings"),
        ({"missing": "known", "known_propensities": ((1, 0.5), (1, 0.6))}, "two or more different ratings"),
        ({"missing": "known", "known_propensities": ()}, "two or more different ratings"),
    ],
)
def test_bad_settings_are_refused_in_one_line(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        Settings().replace(changes)
    assert "\n" not in str(caught.value)


def test_settings_cannot_be_changed_in_place() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().model.latent_size = 3  # type: ignore[misc]


@given(name=st.text(min_size=1))
def test_any_unknown_name_is_refused(name: str) -> None:
    if name in ModelConfig.model_fields or name in TrainingConfig.model_fields:
        return
    with pytest.raises(ConfigError, match="unknown setting"):
        Settings().replace({name: 1})


def test_small_logs_are_sampled_unless_a_setting_forbids_it() -> None:
    def decided(n_ratings: int = 9_999, n_users: int = SAMPLED_CELLS // 100, **settings: object) -> TrainingConfig:
        size = {"n_ratings": n_ratings, "n_users": n_users, "n_items": 100}
        return Settings().replace(settings).resolve(has_levels=True, **size).training

    assert decided().inference == "mcmc"
    assert (decided().most_steps, decided(max_steps=50).most_steps) == (200, 50)
    assert decided(inference="variational").most_steps == 20_000
    for large in (decided(10_000), decided(n_users=SAMPLED_CELLS // 100 + 1)):
        assert (large.inference, large.most_steps) == ("variational", 20_000)
    for setting in ({"item_weights": "point"}, {"estimator": "sampled"}, {"missing": "agnostic"}, {"stop": "held-out"}):
        assert decided(**setting).inference == "variational"
