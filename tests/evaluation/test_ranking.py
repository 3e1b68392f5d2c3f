"""Ranking metrics: by hand, by enumeration of tie orders, and against scikit-learn."""

from itertools import permutations

import numpy as np
import pytest
from sklearn.metrics import ndcg_score, roc_auc_score

from evaluation import ranking
from evaluation.ranking import ALL_USERS, POSITIVE_USERS, Ranking, auc, auc_interval
from mnar_recsys.errors import ConfigError, DataError

D = 1.0 / np.log2(np.arange(2.0, 12.0))  # discounts of ranks 1, 2, ...


def ranked(users: list[int], labels: list[int], scores: list[float]) -> Ranking:
    return Ranking.of(np.array(users), np.array(labels, dtype=bool), scores)


def three_users() -> Ranking:
    """User 1: labels 0 1 1 by rank, user 2: no positive, user 3: a positive, fewer items than k."""
    return ranked([3, 1, 2, 1, 2, 1], [1, 0, 0, 1, 0, 1], [0.1, 5.0, 2.0, 3.0, 1.0, 4.0])


def test_every_metric_by_hand_at_two() -> None:
    found = three_users()
    assert found.users.tolist() == [1, 2, 3]
    assert found.sizes.tolist() == [3, 2, 1]
    assert found.n_positives.tolist() == [2, 0, 1]
    np.testing.assert_allclose(found.dcg(2), [D[1], 0.0, D[0]])
    np.testing.assert_allclose(found.ideal_dcg(2), [D[0] + D[1], 0.0, D[0]])
    np.testing.assert_allclose(found.hits(2), [1, 0, 1])
    expected = {
        "ndcg": [D[1] / (D[0] + D[1]), 1.0, 1.0],  # no positives: 1
        "recall": [1 / 2, 0.0, 1.0],  # no positives: 0
        "recall_capped": [1 / 2, 1.0, 1.0],  # no positives: 1
        "precision": [1 / 2, 0.0, 1 / 2],  # the one item of user 3 counts as 1 of 2
    }
    assert expected.keys() == ALL_USERS.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(ALL_USERS[name](found, 2), values, err_msg=name)


def test_metrics_of_users_with_positives_by_hand() -> None:
    expected = {
        "ndcg_pos": [D[1] / (D[0] + D[1]), 1.0],
        "recall_pos": [1 / 2, 1.0],
        "dcg": [D[1], D[0]],
        "hits": [1.0, 1.0],
    }
    assert expected.keys() == POSITIVE_USERS.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(POSITIVE_USERS[name](three_users(), 2), values, err_msg=name)


def test_recalls_part_where_positives_outnumber_the_cutoff() -> None:
    found = ranked([0] * 4, [1, 1, 1, 0], [4.0, 3.0, 2.0, 1.0])
    assert ranking.recall(found, 2).tolist() == [2 / 3]  # ICDE24, and P3
    assert ranking.recall_capped(found, 2).tolist() == [1.0]  # CDR
    assert found.hits(2).tolist() == [2.0]  # P4 counts
    assert ranking.recall(found, 3).tolist() == [1.0]


def test_fewer_items_than_the_cutoff() -> None:
    found = ranked([7, 7], [0, 1], [2.0, 1.0])
    np.testing.assert_allclose(found.dcg(10), [D[1]])
    np.testing.assert_allclose(ranking.ndcg(found, 10), [D[1]])
    assert ranking.recall(found, 10).tolist() == [1.0]


@pytest.mark.parametrize("k", [1, 2, 3, 4, 6])
def test_ties_count_as_the_mean_over_all_orders(k: int) -> None:
    labels, scores = [1, 0, 1, 0, 0], [2.0, 2.0, 1.0, 2.0, 1.0]
    found = ranked([0] * 5, labels, scores)
    orders = [order for order in permutations(range(5)) if list(np.take(scores, order)) == sorted(scores)[::-1]]
    assert len(orders) == 12
    hits = np.mean([sum(labels[place] for place in order[:k]) for order in orders])
    dcg = np.mean([sum(labels[place] * D[rank] for rank, place in enumerate(order[:k])) for order in orders])
    assert found.hits(k)[0] == pytest.approx(hits)
    assert found.dcg(k)[0] == pytest.approx(dcg)
    assert ranking.ndcg(found, k)[0] == pytest.approx(dcg / D[: min(k, 2)].sum())


def test_a_constant_prediction_ranks_like_a_coin() -> None:
    found = ranked([0] * 4 + [1] * 4, [1, 0, 0, 0, 0, 0, 1, 1], [1.0] * 8)
    np.testing.assert_allclose(ranking.recall(found, 2), [0.5, 0.5])
    assert auc(np.array([True, False, False]), [1.0, 1.0, 1.0]) == 0.5


def test_order_of_rows_and_names_of_users_do_not_matter() -> None:
    rng = np.random.default_rng(0)
    users, labels, scores = rng.integers(0, 9, 60), rng.random(60) < 0.4, rng.integers(0, 4, 60).astype(float)
    order = rng.permutation(60)
    first = Ranking.of(users, labels, scores)
    names = np.array([f"user {user}" for user in users[order]], dtype=object)
    again = Ranking.of(names, labels[order], scores[order])
    np.testing.assert_allclose(first.dcg(3), again.dcg(3))
    assert [f"user {user}" for user in first.users] == again.users.tolist()


@pytest.mark.parametrize("ties", [False, True])
def test_ndcg_agrees_with_scikit_learn(ties: bool) -> None:
    rng = np.random.default_rng(1)
    labels = rng.random((50, 8)) < 0.4
    labels[:, 0] = True  # scikit-learn scores users without positives as 0, which is none of our conventions
    scores = rng.integers(1, 6, labels.shape).astype(float) if ties else rng.normal(size=labels.shape)
    found = Ranking.of(np.repeat(np.arange(50), 8), labels.ravel(), scores.ravel())
    for k in (1, 3, 8):
        assert ranking.ndcg(found, k).mean() == pytest.approx(ndcg_score(labels, scores, k=k))


@pytest.mark.parametrize("ties", [False, True])
def test_auc_agrees_with_scikit_learn(ties: bool) -> None:
    rng = np.random.default_rng(2)
    labels = rng.random(500) < 0.2
    scores = labels + rng.normal(size=500) * 2
    scores = np.round(scores) if ties else scores
    assert auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores))
    assert auc(labels, -scores) == pytest.approx(1 - auc(labels, scores))


def clustered(rng: np.random.Generator, n_users: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Users who differ in how much they like and in how they are predicted."""
    sizes = rng.integers(3, 12, n_users)
    users = np.repeat(np.arange(n_users), sizes)
    level, gap = rng.normal(size=n_users), rng.normal(size=n_users)
    labels = rng.normal(size=len(users)) + level[users] > 0.8
    scores = labels + 0.7 * level[users] + 0.7 * gap[users] + rng.normal(size=len(users))
    return users, labels, np.round(scores, 1)


def test_auc_interval_agrees_with_resampling_users_outright() -> None:
    rng = np.random.default_rng(3)
    users, labels, scores = clustered(rng, 150)
    found = auc_interval(labels, scores, users, level=0.9, resamples=4000)
    assert found.value == pytest.approx(roc_auc_score(labels, scores))
    weights = rng.multinomial(150, np.ones(150) / 150, size=700)
    full = [roc_auc_score(labels, scores, sample_weight=row[users]) for row in weights]
    low, high = np.quantile(full, (0.05, 0.95))
    width = high - low
    assert found.low == pytest.approx(low, abs=0.12 * width)
    assert found.high == pytest.approx(high, abs=0.12 * width)
    # Clusters matter: pairs resampled one by one would look surer.
    alone = auc_interval(labels, scores, np.arange(len(users)), level=0.9)
    assert alone.high - alone.low < 0.85 * width


def test_auc_interval_survives_resamples_without_a_class() -> None:
    found = auc_interval(np.array([True, False, False]), [2.0, 1.0, 3.0], np.array([0, 1, 2]))
    assert found.value == 0.5
    assert 0.0 <= found.low <= found.high <= 1.0


def test_what_cannot_be_ranked_is_refused() -> None:
    labels = np.array([True, False])
    with pytest.raises(DataError, match="1 of 2 are not finite"):
        Ranking.of(np.array([0, 0]), labels, [np.nan, 1.0])
    with pytest.raises(DataError, match=r"labels must be boolean; found float64"):
        Ranking.of(np.array([0, 0]), labels.astype(float), [1.0, 2.0])
    with pytest.raises(DataError, match="equally long"):
        Ranking.of(np.array([0]), labels, [1.0, 2.0])
    with pytest.raises(DataError, match="at least one pair"):
        Ranking.of(np.array([]), labels[:0], [])
    with pytest.raises(DataError, match="both labels; found 2 pairs, all negative"):
        auc(np.array([False, False]), [1.0, 2.0])
    with pytest.raises(ConfigError, match="at least 1; found 0"):
        three_users().hits(0)
