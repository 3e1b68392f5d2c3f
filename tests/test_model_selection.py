"""Choosing settings by held-out users: what is compared, what is chosen, what is said of it."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from factories import log_of, random_matrix
from scipy.special import expit

from mnar_recsys import MNARRecommender, RatingLog, Settings, model_selection, simulate_ratings
from mnar_recsys.candidates import CANDIDATES, make_candidates
from mnar_recsys.data import RatingScale
from mnar_recsys.data.simulate import Simulation
from mnar_recsys.errors import ConfigError, DataError, DivergedError
from mnar_recsys.model_selection import CandidateScore, Selection, select_settings
from mnar_recsys.training import Trainer

SMALL = {
    "latent_size": 3,
    "exposure_size": 0,
    "exposure_sees_taste": False,
    "item_weights": "point",
    "samples": 5,
    "batch_size": 100,
    "max_steps": 150,
    "validation_samples": 10,
    "evaluate_every": 25,
    "device": "cpu",
}
TINY = SMALL | {"max_steps": 4, "evaluate_every": 2, "samples": 2}
PAIR = ("missing=per-level", "missing=ignorable")


def scores(bounds: dict[str, list[float]], **changes: Any) -> Selection:
    found = []
    for name, values in bounds.items():
        settings = Settings().replace({"missing": "per-level", **changes.get(name, {})})
        found.append(CandidateScore(name, settings, np.array(values), 1.0, 2.0, 3.0))
    return Selection(tuple(found))


def test_differences_are_paired_and_the_first_within_one_standard_error_is_chosen() -> None:
    # d is best; to it, b loses 1 +- 2 (paired sd 4 over 4 users), c loses 1 +- 0.
    selection = scores({"a": [-9, -9, -9, -9], "b": [-4, 4, -4, 0], "c": [-1, 1, -1, 1], "d": [0, 2, 0, 2]})
    table = selection.table
    assert table["held_out"].tolist() == [-9, -1, 0, 1]
    assert table["difference"].tolist() == [-10, -2, -1, 0]
    by_hand = np.std([-4, 2, -4, -2], ddof=1) / 2
    assert table["se"].tolist() == pytest.approx([np.std([9, 11, 9, 11], ddof=1) / 2, by_hand, 0, 0])
    assert table["within_se"].tolist() == [False, False, False, True]
    assert selection.chosen.name == "d"
    tied = scores({"a": [-9, -9, -9, -9], "b": [-8, 6, -4, 4], "d": [0, 2, 0, 2]})
    assert tied.table["difference"].tolist() == [-10, -1.5, 0]
    assert tied.table["within_se"].tolist() == [False, True, True]
    assert tied.chosen.name == "b"
    assert tied.best is tied.scores[1].settings


def test_doubts() -> None:
    clear = {"a": [float(n % 3) for n in range(200)], "b": [n % 3 - 1.0 for n in range(200)]}
    assert scores(clear).doubts() == ()
    few = {name: values[:20] for name, values in clear.items()}
    assert "only 20 users are held out" in scores(few).doubts()[0]
    signs = scores(clear, b={"sign": "free"}).doubts()
    assert len(signs) == 1
    assert "sign of the selection" in signs[0]
    even = {"a": [0.0] * 200, "b": [1.0, -1.0] * 100}
    (tie,) = scores(even).doubts()
    assert "2 of the 2 candidates are within a standard error" in tie
    assert "with and without selection" not in tie
    (tie,) = scores(even, b={"missing": "ignorable"}).doubts()
    assert "with and without selection" in tie
    assert "nothing is debiased" in scores(clear, a={"missing": "ignorable"}).doubts()[-1]


@pytest.fixture(scope="module")
def selected() -> Simulation:
    return simulate_ratings("monotone", n_users=700, n_items=60, seed=2, ratings_per_user=15)


def simulated(strength: float) -> RatingLog:
    """Strong tastes; a level adds ``strength`` to the log-odds of being rated, beside activity and popularity."""
    rng = np.random.default_rng(1)
    score = 1.5 * rng.normal(size=(400, 2)) @ rng.normal(size=(2, 40)) + rng.normal(size=40)
    score += rng.logistic(size=score.shape)
    ratings = 1.0 + (score[..., None] > np.array([-2.5, -0.8, 0.8, 2.5])).sum(-1)
    log_odds = -1.7 + strength * (ratings - 3) + 0.6 * rng.normal(size=(400, 1)) + 0.5 * rng.normal(size=40)
    ratings[rng.random(ratings.shape) > expit(log_odds)] = np.nan
    return log_of(ratings, RatingScale(1, 5, 1))


@pytest.mark.parametrize("strength", [0.8, 0.0])
def test_selection_by_level_is_seen_where_there_is_some(strength: float) -> None:
    # A flat prior on the selection: the other one says that there is some.
    settings = Settings().replace(SMALL | {"latent_size": 2, "learning_rate": 0.03, "selection_prior_sd": None})
    selection = select_settings(simulated(strength), make_candidates(PAIR, settings), seed=0)
    table = selection.table.set_index("candidate")
    gap, error = table.loc["missing=ignorable", "difference"], float(table["se"].max())
    if strength:
        assert gap < -4 * error
        assert table.loc["missing=per-level", "selection"] > 1.5  # truth: 3.2
        # With selection, what was not rated is taken to be worse.
        assert table.loc["missing=per-level", "mean_unrated"] < table.loc["missing=ignorable", "mean_unrated"] - 0.3
        assert selection.best.model.missing == "per-level"
    else:
        assert abs(float(table["difference"].min())) < 2.5 * error
        assert table.loc["missing=per-level", "selection"] < 1.5
    assert table.loc["missing=ignorable", "selection"] == 0


def test_the_held_out_users_are_in_no_fit_and_the_same_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    log = log_of(random_matrix(60, 8, seed=1))
    fitted_to, scored, score = set(), [], model_selection.user_bounds

    def on_step(trainer: Trainer, _: object) -> None:
        fitted_to.update(trainer.log.users.ids[np.diff(trainer.log.indptr) > 0])
        fitted_to.update(trainer.log.users.ids[trainer.train_users])

    def spy(model: Any, known: RatingLog, users: np.ndarray, **options: Any) -> np.ndarray:
        scored.append(frozenset(known.users.ids[users]))
        return score(model, known, users, **options)

    monkeypatch.setattr(model_selection, "user_bounds", spy)
    done = []
    settings = Settings().replace(TINY | {"stop": "held-out"})
    candidates = make_candidates(PAIR, settings)
    selection = select_settings(log, candidates, on_step=on_step, on_candidate=done.append)
    assert done == list(selection.scores)
    assert len(set(scored)) == 1
    n_known = int((np.diff(log.indptr) > 0).sum())
    assert len(scored[0]) == selection.n_users == round(n_known / 5)
    assert not scored[0] & fitted_to
    assert len(scored[0] | fitted_to) == n_known


def test_a_seed_gives_the_table(selected: Simulation) -> None:
    part = selected.train.select_users(np.arange(80))
    candidates = make_candidates(("decoder=ordinal", "decoder=gaussian"), Settings().replace(TINY))
    first, again, other = (
        select_settings(part, candidates, seed=seed).table.drop(columns="seconds") for seed in (1, 1, 2)
    )
    pd.testing.assert_frame_equal(first, again, check_exact=True)
    assert (first["held_out"] != other["held_out"]).all()
    assert (first["held_out"] < 0).all()  # probabilities, the Gaussian's too


def test_auto_is_decided_by_all_users_and_labels_count(selected: Simulation) -> None:
    base = Settings().replace(TINY | {"item_weights": "auto", "exposure_sees_taste": "auto"})
    log, labels = selected.train, selected.labels
    # Some 10,500 ratings: no small log, though the part that is fitted has fewer than 10,000.
    assert log.n_ratings > 10_000 > 0.85 * log.n_ratings
    decided = model_selection.decide(log, make_candidates(PAIR, base))
    assert {one.model.exposure_sees_taste for one in decided.values()} == {False}
    selection = select_settings(log, make_candidates(PAIR, base), labels=labels)
    assert selection.best.model.exposure_sees_taste is False
    assert selection.best.training.stop == "converged"
    model = MNARRecommender(selection.best).fit(log, labels=labels)
    assert model.fitted.settings == selection.best


def test_the_default_list_is_what_the_scale_allows() -> None:
    names = list(model_selection.decide(log_of(random_matrix(30, 5))))
    assert names == list(CANDIDATES)
    real = log_of(random_matrix(30, 5), RatingScale(1, 3))
    names = list(model_selection.decide(real))
    assert names == ["decoder=gaussian,missing=shared", "decoder=gaussian,missing=ignorable"]
    table = select_settings(real, settings=Settings().replace(TINY)).table
    assert table["candidate"].tolist() == names
    assert np.isfinite(table["held_out"]).all()


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["decoder=ordinal"], "two or more candidates; found 1"),
        (["decoder=ordinal", "decoder=ordinal"], "'decoder=ordinal': is given twice"),
        (["decoder=ordinal", " decoder = ordinal"], "is given twice"),
        (["decoder=ordinal", "decoder"], "candidate 'decoder': --candidate needs key=value.*found 'decoder'"),
        (["decoder=ordinal", "decoders=gaussian"], "candidate 'decoders=gaussian': unknown setting 'decoders'"),
        (["decoder=ordinal", "code_size=0"], "candidate 'code_size=0': .*greater than or equal to 1"),
        (["sign=free,sign=positive", "decoder=ordinal"], "setting 'sign' is given twice"),
        (["latent_size=4", "decoder=ordinal"], "candidate 'latent_size=4': .*given for all candidates as well"),
    ],
)
def test_wrong_candidates(texts: list[str], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        make_candidates(texts, taken=["latent_size"])


def test_candidates_that_do_not_fit_the_log_are_refused_before_any_fit() -> None:
    def never(*_: object) -> None:
        raise AssertionError("fitted")

    real = log_of(random_matrix(30, 5), RatingScale(1, 3))
    with pytest.raises(ConfigError, match="candidate 'decoder=ordinal': decoder 'ordinal' needs rating levels"):
        select_settings(real, make_candidates(["decoder=gaussian", "decoder=ordinal"]), on_step=never)
    log = log_of(random_matrix(30, 5))
    with pytest.raises(ConfigError, match="'decoder=auto' and 'decoder=ordinal' are the same for this log"):
        select_settings(log, make_candidates(["decoder=auto", "decoder=ordinal"]), on_step=never)
    with pytest.raises(ConfigError, match="differ in inference only, and all are compared by variational fits"):
        select_settings(log, make_candidates(["inference=mcmc", "inference=variational,item_weights=variational"]))
    with pytest.raises(DataError, match="10 users with ratings; found 7"):
        select_settings(log_of(random_matrix(8, 5)), on_step=never)
    rates = make_candidates(["learning_rate=.01", "learning_rate=1e30"], Settings().replace(TINY | {"max_steps": 20}))
    with pytest.raises(DivergedError, match="candidate 'learning_rate=1e30': the bound is not finite"):
        select_settings(log, rates)
