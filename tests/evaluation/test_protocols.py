"""The four protocols: their splits, their tables by hand, and what must be refused."""

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from evaluation import labels as binary
from evaluation.evaluate import COLUMNS, evaluate
from evaluation.label_intervals import LabelledPairs, label_intervals
from evaluation.labels import PositiveMap
from evaluation.protocols import P1, P2, P3, P4, PROTOCOLS, make_split, score
from mnar_recsys.data import RatingLog, RatingScale, Split
from mnar_recsys.data.simulate import Simulation, simulate_ratings
from mnar_recsys.errors import ConfigError, DataError
from mnar_recsys.propensity.base import PropensityModel

D = 1.0 / np.log2(np.arange(2.0, 12.0))


@pytest.fixture(scope="module")
def simulation() -> Simulation:
    return simulate_ratings(n_users=400, n_items=100, ratings_per_user=8, seed=3)


def truth_of(simulation: Simulation, log: RatingLog) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the best mean, (n,), and level probabilities, (n, R), of a log's cells."""
    users, items = log.users.take(log.rows), log.catalogue.take(log.items)
    return simulation.truth.expected_rating(users, items), simulation.truth.level_probabilities(users, items)


def hand_split() -> Split:
    """User 1 is surveyed on items 1..3, user 2 on 1 and 2, user 3 on 3; nobody chose any of these cells."""
    train = RatingLog.from_arrays([1, 2, 3], [4, 4, 4], [5, 4, 3], scale="1,5", catalogue=[1, 2, 3, 4])
    test = RatingLog.from_arrays([1, 1, 1, 2, 2, 3], [1, 2, 3, 1, 2, 3], [2, 4, 5, 1, 3, 4], scale="1,5")
    return Split(mnar_train=train, mcar_test=test)


MEAN = [4.0, 3.0, 2.0, 3.5, 1.5, 4.5]
LEVELS = np.array(
    [
        [0.1, 0.2, 0.3, 0.2, 0.2],
        [0.5, 0.2, 0.1, 0.1, 0.1],
        [0.0, 0.1, 0.2, 0.3, 0.4],
        [0.7, 0.1, 0.1, 0.1, 0.0],
        [0.3, 0.2, 0.2, 0.2, 0.1],
        [0.2, 0.2, 0.2, 0.2, 0.2],
    ]
)


def values(table: pd.DataFrame, cells: str = "all") -> dict[str, float]:
    return table[table["cells"] == cells].set_index("metric")["value"].to_dict()


def test_p2_by_hand() -> None:
    table = score(P2, hand_split(), MEAN, level_probabilities=LEVELS)
    assert tuple(table.columns) == COLUMNS
    found = values(table)
    assert tuple(found) == P2.metrics
    # Positive at 3 or more. User 1 has labels 0 1 1 in the order of the means, user 2: 0 1, user 3: 1.
    first = (D[1] + D[2]) / (D[0] + D[1])
    assert found["ndcg@5"] == pytest.approx((first + D[1] + 1.0) / 3)
    assert found["recall@5"] == found["recall_capped@5"] == 1.0
    precision = (2 / 5 + 1 / 5 + 1 / 5) / 3
    assert found["f1@5"] == pytest.approx(2 * precision / (precision + 1.0))
    probability = np.array([0.7, 0.3, 0.9, 0.2, 0.5, 0.6])
    assert found["mse_label"] == pytest.approx(np.square(probability - [0, 1, 1, 0, 1, 1]).mean())
    # Positives .3 .9 .5 .6 against negatives .7 .2: 0.9 beats both, the rest one.
    assert found["auc"] == pytest.approx(5 / 8)
    counts = table[table["cells"] == "all"].set_index("metric")["n"].to_dict()
    assert (counts["auc"], counts["mse_label"], counts["ndcg@5"], counts["f1@10"]) == (6, 6, 3, 3)


def test_p3_by_hand() -> None:
    found = values(score(P3, hand_split(), MEAN, level_probabilities=LEVELS))
    assert tuple(found) == P3.metrics
    # Positive at 4 or more; user 2 has none and is left out.
    assert found["ndcg_pos@5"] == pytest.approx(((D[1] + D[2]) / (D[0] + D[1]) + 1.0) / 2)
    assert found["recall_pos@5"] == 1.0
    probability = np.array([0.4, 0.2, 0.7, 0.1, 0.3, 0.4])
    assert found["nll"] == pytest.approx(-np.log([0.6, 0.2, 0.7, 0.9, 0.7, 0.4]).mean())
    positive = np.array([False, True, True, False, False, True])
    wins = (probability[positive, None] > probability[~positive]) + 0.5 * (
        probability[positive, None] == probability[~positive]
    )
    assert found["auc"] == pytest.approx(wins.mean())


def test_p4_by_hand() -> None:
    table = score(P4, hand_split(), MEAN)
    found = values(table)
    assert tuple(found) == P4.metrics
    assert found["dcg@2"] == pytest.approx((D[1] + D[0]) / 2)
    assert found["dcg@4"] == found["dcg@6"] == pytest.approx((D[1] + D[2] + D[0]) / 2)
    assert (found["hits@2"], found["hits@4"], found["hits@6"]) == (1.0, 1.5, 1.5)
    assert set(table["n"]) == {2}


def test_p1_is_the_table_of_raw_errors() -> None:
    split = hand_split()
    found = score(P1, split, MEAN, level_probabilities=LEVELS, resamples=50)
    pd.testing.assert_frame_equal(
        found, evaluate(split.mcar_test, MEAN, level_probabilities=LEVELS, unseen=split.unseen, resamples=50)
    )
    assert tuple(values(found))[: len(P1.metrics)] == P1.metrics


def test_without_a_probability_its_metrics_are_absent_and_the_mean_ranks() -> None:
    found = values(score(P2, hand_split(), MEAN))
    assert "mse_label" not in found
    # Positives 3 2 1.5 4.5 against negatives 4 3.5 by predicted mean.
    assert found["auc"] == pytest.approx(2 / 8)
    assert "nll" not in values(score(P3, hand_split(), MEAN))


def test_unseen_cells_are_ranked_among_themselves(simulation: Simulation) -> None:
    split = Split(mnar_train=simulation.train, mcar_test=simulation.test)
    mean, levels = truth_of(simulation, simulation.test)
    assert 0 < split.n_seen < simulation.test.n_ratings
    table = score(P2, split, mean, level_probabilities=levels, resamples=20)
    unseen = simulation.test.select_ratings(split.unseen)
    alone = score(
        P2,
        Split(mnar_train=simulation.train, mcar_test=unseen),
        mean[split.unseen],
        level_probabilities=levels[split.unseen],
        resamples=20,
    )
    assert values(table, "unseen") == values(alone, "all")
    assert values(table, "unseen") != values(table, "all")
    assert table["cells"].unique().tolist() == ["unseen", "all"]


def test_intervals_hold_their_value_and_narrow_with_users(simulation: Simulation) -> None:
    mean, levels = truth_of(simulation, simulation.test)
    pairs = LabelledPairs(simulation.test.rows, simulation.test.ratings >= 3, mean, levels[:, 2:].sum(axis=1))
    # Among at most 10 items the first 10 hold every positive.
    metrics = [metric for protocol in (P2, P3, P4) for metric in protocol.metrics if metric != "recall_capped@10"]
    small = label_intervals(pairs, metrics, resamples=300)
    assert list(small) == list(dict.fromkeys(metrics))
    copies = LabelledPairs(
        np.concatenate([pairs.users + 1000 * copy for copy in range(4)]),
        *(np.tile(part, 4) for part in (pairs.labels, pairs.scores, pairs.probability)),
    )
    large = label_intervals(copies, metrics, resamples=300)
    for metric, found in small.items():
        assert found.low < found.value < found.high, metric
        assert large[metric].value == pytest.approx(found.value)
        ratio = (large[metric].high - large[metric].low) / (found.high - found.low)
        assert ratio == pytest.approx(0.5, abs=0.12), metric


def test_a_label_ruled_out_is_an_infinite_loss() -> None:
    pairs = LabelledPairs(np.array([0, 1]), np.array([True, False]), np.array([1.0, 2.0]), np.array([0.0, 0.5]))
    found = label_intervals(pairs, ["nll", "mse_label"])
    assert found["nll"].value == found["nll"].high == np.inf
    assert found["mse_label"].value == pytest.approx((1.0 + 0.25) / 2)


def test_f1_without_any_hit_is_zero() -> None:
    pairs = LabelledPairs(np.array([0, 0]), np.array([False, False]), np.array([1.0, 2.0]))
    assert label_intervals(pairs, ["f1@5"], resamples=5)["f1@5"].value == 0.0


@pytest.mark.parametrize("metric", ["ndcg", "ndcg@", "ndcg@-1", "auc@5", "map@5", "nll@2"])
def test_unknown_metrics_are_refused(metric: str) -> None:
    pairs = LabelledPairs(np.array([0, 0]), np.array([True, False]), np.array([1.0, 2.0]))
    with pytest.raises(ConfigError, match="a metric must be one of auc"):
        label_intervals(pairs, [metric])


def test_p3_splits_the_survey_5_5_90(simulation: Simulation) -> None:
    survey = simulation.test
    made = make_split(P3, simulation.train, survey)
    n = survey.n_ratings
    parts = (made.split.mcar_labels, made.mcar_valid, made.split.mcar_test)
    assert [part.n_ratings for part in parts] == [int(0.05 * n), int(0.05 * n), n - 2 * int(0.05 * n)]
    cells = np.concatenate([part.cells for part in parts])
    assert np.array_equal(np.sort(cells), survey.cells)
    again = make_split(P3, simulation.train, survey)
    assert np.array_equal(again.split.mcar_test.cells, made.split.mcar_test.cells)
    other = make_split(P3, simulation.train, survey, seed=1)
    assert not np.array_equal(other.split.mcar_test.cells, made.split.mcar_test.cells)


def test_validation_ratings_share_the_split_s_vocabulary(simulation: Simulation) -> None:
    survey = RatingLog.from_arrays(
        np.arange(900, 940), np.arange(500, 540), np.resize([1.0, 4.0], 40), scale=simulation.train.scale
    )
    made = make_split(P3, simulation.train, survey)
    assert made.mcar_valid.users == made.split.mnar_train.users
    assert made.mcar_valid.n_items == made.split.mcar_test.n_items == 100 + 40


def test_the_others_keep_the_survey_whole(simulation: Simulation) -> None:
    for protocol in (P1, P2, P4):
        made = make_split(protocol, simulation.train, simulation.test)
        assert made.split.mcar_test.n_ratings == simulation.test.n_ratings
        assert made.split.mcar_labels is made.mcar_valid is None
    held_out = make_split(P4, simulation.train, simulation.test).split.mnar_valid
    assert held_out.n_ratings == round(0.1 * simulation.train.n_ratings)
    assert make_split(P1, simulation.train, simulation.test).split.mnar_valid is None


def test_protocols_are_the_published_ones() -> None:
    assert {name: protocol.threshold for name, protocol in PROTOCOLS.items()} == {"P1": None, "P2": 3, "P3": 4, "P4": 4}
    with pytest.raises(AttributeError):
        P2.threshold = 4.0


def test_too_small_a_survey_is_refused(simulation: Simulation) -> None:
    few = RatingLog.from_arrays([1, 2], [1, 2], [1.0, 4.0], scale=simulation.train.scale)
    with pytest.raises(DataError, match=r"P3 needs MCAR ratings for shares of 0.05 and 0.05; found 2"):
        make_split(P3, simulation.train, few)


def test_labels_that_share_cells_with_the_test_are_refused(simulation: Simulation) -> None:
    made = make_split(P3, simulation.train, simulation.test)
    leaked = made.split.mcar_test.select_ratings(np.arange(made.split.mcar_test.n_ratings) < 5)
    with pytest.raises(DataError, match="mcar_labels and mcar_test must share no"):
        Split(mnar_train=simulation.train, mcar_labels=leaked, mcar_test=made.split.mcar_test)


class Marginal(PropensityModel):
    """Stands for a model that reads MCAR labels, as naive Bayes does."""

    needs_labels = True

    def _fit(self, split: Split, seed: int) -> None:
        del seed
        self.read = split.mcar_labels.cells

    def _propensity(self, rows: NDArray, columns: NDArray, ratings: NDArray | None) -> NDArray[np.float64]:
        raise NotImplementedError


def test_propensities_cannot_be_fitted_with_test_labels(simulation: Simulation) -> None:
    split = make_split(P3, simulation.train, simulation.test).split
    with pytest.raises(DataError, match="propensities must not be fitted with the test"):
        Marginal().fit(split, seed=0)
    model = Marginal().fit(split.for_training(), seed=0)
    assert not np.isin(model.read, split.mcar_test.cells).any()


def test_a_map_recovers_a_logistic_truth_and_never_sees_the_test() -> None:
    rng = np.random.default_rng(0)
    mean = rng.uniform(1, 5, 20_000)
    positive = rng.random(20_000) < 1 / (1 + np.exp(-(-6 + 1.5 * mean)))
    chosen = RatingLog.from_arrays([1, 2], [20_001, 20_002], [1, 5], scale="1,5")
    labels = RatingLog.from_arrays(
        np.ones(20_000, int), np.arange(20_000), np.where(positive, 4, 2), scale="1,5", user_ids=[1]
    )
    split = Split(mnar_train=chosen, mcar_labels=labels)
    found = PositiveMap.fit(split, mean, threshold=4, role="mcar_labels")
    assert (found.slope, found.intercept) == pytest.approx((1.5, -6), rel=0.06)
    assert found.probability([4.0]) == pytest.approx([0.5], abs=0.02)
    test = RatingLog.from_arrays([1, 2], [20_001, 20_002], [1, 5], scale="1,5")
    with pytest.raises(DataError, match="must not see the test; found 2 ratings"):
        PositiveMap.fit(
            Split(mnar_train=chosen, mcar_labels=labels, mcar_test=test), mean, threshold=4, role="mcar_labels"
        )
    with pytest.raises(DataError, match="needs mnar_valid; this split has none"):
        PositiveMap.fit(split, mean, threshold=4, role="mnar_valid")
    with pytest.raises(DataError, match=r"both sides of 5; mcar_labels has 0 of 20000"):
        PositiveMap.fit(split, mean, threshold=5, role="mcar_labels")


def test_a_map_stands_in_for_level_probabilities() -> None:
    chosen = PositiveMap(threshold=3.0, slope=2.0, intercept=-6.0)
    found = values(score(P2, hand_split(), MEAN, positive_map=chosen))
    expected = np.square(1 / (1 + np.exp(6 - 2 * np.array(MEAN))) - [0, 1, 1, 0, 1, 1]).mean()
    assert found["mse_label"] == pytest.approx(expected)
    assert found["auc"] == pytest.approx(values(score(P2, hand_split(), MEAN))["auc"])
    with pytest.raises(ConfigError, match="for the threshold 4; found 3"):
        score(P3, hand_split(), MEAN, positive_map=chosen)


def test_labels_and_probabilities_on_fractional_levels() -> None:
    log = RatingLog.from_arrays([1, 2], [1, 2], [0.3, 0.2], scale="0,1,0.1")
    assert binary.binarise(log, 0.3).tolist() == [True, False]
    table = np.full((1, 11), 1 / 11)
    assert binary.positive_probability(log.scale, table, 0.3) == pytest.approx([8 / 11])


def test_what_does_not_fit_is_refused() -> None:
    split = hand_split()
    with pytest.raises(DataError, match="scoring needs mcar_test"):
        score(P2, split.for_training(), MEAN)
    with pytest.raises(DataError, match="1 of 6 are not finite"):
        score(P2, split, [np.nan, *MEAN[1:]])
    with pytest.raises(DataError, match="equally long"):
        score(P2, split, MEAN[:5])
    with pytest.raises(DataError, match=r"= \(6, 5\); found \(6, 4\)"):
        score(P2, split, MEAN, level_probabilities=np.full((6, 4), 0.25))
    with pytest.raises(ConfigError, match="above 1 and at most 5"):
        binary.binarise(split.mcar_test, 1.0)
    with pytest.raises(DataError, match="found 2 columns"):
        binary.positive_probability(RatingScale(1, 5, 1), [[0.5, 0.5]], 3.0)
    with pytest.raises(DataError, match=r"between 0 and 1; found 1\.5 at position 1"):
        binary.label_loss(np.array([True, True]), [0.5, 1.5])
    disliked = RatingLog.from_arrays([1, 2], [1, 2], [1, 2], scale="1,5")
    nobody = Split(mnar_train=split.mnar_train, mcar_test=disliked)
    with pytest.raises(DataError, match="need a user with a positive test item"):
        score(P4, nobody, [1.0, 2.0])
    with pytest.raises(DataError, match="the AUC needs pairs of both labels"):
        score(P2, nobody, [1.0, 2.0])
