"""Where the rating decides nothing, the default claims no selection; where it does, it keeps it."""

import numpy as np
import pytest

from mnar_recsys import MNARRecommender, simulate_ratings
from mnar_recsys.config import Settings
from mnar_recsys.data import RatingLog
from mnar_recsys.model.build import build_model
from mnar_recsys.model_card import gave_up_selection, model_card, selection_by_level
from mnar_recsys.rng import torch_seed
from mnar_recsys.training import Trainer
from mnar_recsys.training.without_selection import keep_if_no_worse_without

QUICK = {"inference": "variational", "item_weights": "point", "max_steps": 150, "samples": 4, "patience": 2}


@pytest.fixture(scope="module", params=["popularity", "r3-like"])
def case(request: pytest.FixtureRequest) -> tuple[str, RatingLog]:
    data = simulate_ratings(request.param, n_users=1000, n_items=120, seed=1, ratings_per_user=12)
    return request.param, data.train


def test_held_out_users_decide(case: tuple[str, RatingLog]) -> None:
    preset, log = case
    checked = MNARRecommender(**QUICK).fit(log, seed=0).fitted
    plain = MNARRecommender(**QUICK, check_selection=False).fit(log, seed=0).fitted
    ignorable = MNARRecommender(**QUICK, missing="ignorable").fit(log, seed=0).fitted
    assert not gave_up_selection(plain)
    best = {name: max(row["held_out"] for row in one.history) for name, one in
            (("checked", checked), ("plain", plain), ("ignorable", ignorable))}  # fmt: skip
    if preset == "popularity":
        assert gave_up_selection(checked)
        assert "no selection is assumed" in model_card(checked)
        assert max(map(abs, selection_by_level(checked).values())) < 1e-5
        assert best["checked"] == pytest.approx(best["ignorable"], abs=0.02)
        assert best["checked"] >= best["plain"] - 0.1
    else:
        assert not gave_up_selection(checked)
        assert checked.history == plain.history
        assert best["plain"] > best["ignorable"]


def test_without_held_out_users_the_objective_decides(case: tuple[str, RatingLog]) -> None:
    preset, log = case
    options = QUICK | {"item_weights": "variational", "max_steps": 300, "samples": 2}
    checked = MNARRecommender(**options).fit(log, seed=0).fitted
    assert checked.settings.training.stop == "converged"
    assert gave_up_selection(checked) == (preset == "popularity")
    objective = []
    for missing in ("auto", "ignorable"):
        settings = Settings().replace(options | {"missing": missing}).resolve_for(log)
        trainer = Trainer(build_model(settings.model, log, torch_seed(0, "weights")), log, settings, seed=0)
        trainer.run()
        objective.append(float(trainer.bound_on(trainer.train_users).mean()))
    assert (objective[1] >= objective[0] - 0.05) == (preset == "popularity")


def test_small_logs_keep_what_was_stated() -> None:
    log = simulate_ratings("popularity", n_users=300, n_items=120, seed=1, ratings_per_user=12).train
    fitted = MNARRecommender(**QUICK | {"item_weights": "variational", "max_steps": 60}).fit(log, seed=0).fitted
    assert not gave_up_selection(fitted)
    assert selection_by_level(fitted)[5.0] > selection_by_level(fitted)[1.0]


def test_a_stated_mechanism_is_not_questioned(case: tuple[str, RatingLog]) -> None:
    _, log = case
    fitted = MNARRecommender(**QUICK | {"max_steps": 50}, missing="per-level").fit(log, seed=0).fitted
    assert not gave_up_selection(fitted)


@pytest.mark.parametrize("sign", ["positive", "negative", "free"])
def test_the_other_fit_has_no_slope_and_no_prior_on_it(case: tuple[str, RatingLog], sign: str) -> None:
    _, log = case
    settings = Settings().replace(QUICK | {"sign": sign, "max_steps": 20, "evaluate_every": 10}).resolve_for(log)
    trainer = Trainer(build_model(settings.model, log, 0), log, settings, seed=0)
    trainer.run()
    trainer.highest -= 100.0  # the other one wins in any case
    other = build_model(settings.model, log, 0)
    assert keep_if_no_worse_without(trainer, other, settings)
    curve = trainer.model.missing.selection(log_levels := other.decoder.levels)
    assert len(log_levels) == 5
    assert float(curve.detach().abs().max()) < 1e-6
    assert other.missing.log_prior(0.5) == 0.0
    assert [row["step"] for row in trainer.progress.history] == [10, 20]


def test_a_resumed_run_checks_again(case: tuple[str, RatingLog], tmp_path_factory: pytest.TempPathFactory) -> None:
    _, log = case
    folder = tmp_path_factory.mktemp("resumed") / "model"
    options = QUICK | {"max_steps": 60, "evaluate_every": 20}
    whole = MNARRecommender(**options).fit(log, seed=0)

    def interrupt(trainer: Trainer, _: object) -> None:
        if trainer.progress.step == 50:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        MNARRecommender(**options).fit(log, seed=0, folder=folder, on_step=interrupt)
    resumed = MNARRecommender(**options).fit(log, seed=0, folder=folder, resume=True)
    np.testing.assert_array_equal(resumed.predict([1, 2], [3, 4]), whole.predict([1, 2], [3, 4]))
    loaded = MNARRecommender.load(folder)
    assert gave_up_selection(loaded.fitted) == gave_up_selection(whole.fitted)
