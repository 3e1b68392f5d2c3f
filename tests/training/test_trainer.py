"""One training loop: it climbs the bound, stops, repeats itself, resumes, and touches no held-out user."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from factories import log_of, random_matrix
from torch import nn

from mnar_recsys.config import Settings
from mnar_recsys.data import RatingLog
from mnar_recsys.errors import ConfigError, DivergedError
from mnar_recsys.model.batch import make_batch
from mnar_recsys.model.bound import importance_bound
from mnar_recsys.model.build import build_model
from mnar_recsys.training import BoundTerms, Trainer, pick_device

SMALL = {
    "latent_size": 2,
    "embedding_size": 4,
    "code_size": 8,
    "samples": 4,
    "batch_size": 16,
    "validation_samples": 20,
    "evaluate_every": 5,
    "max_steps": 20,
    "device": "cpu",
    "stop": "held-out",
    "average_decay": 0,
}


@pytest.fixture(scope="module")
def log() -> RatingLog:
    return log_of(random_matrix(60, 12, seed=3, density=0.3))


def trainer_of(log: RatingLog, *, seed: int = 0, **changes: Any) -> Trainer:
    settings = Settings().replace(SMALL | changes)
    return Trainer(build_model(settings.model, log, 1), log, settings, seed=seed)


def weights_of(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("decoder", ["categorical", "ordinal", "gaussian"])
@pytest.mark.parametrize("estimator", ["marginal", "sampled"])
def test_a_gradient_step_raises_the_bound(log: RatingLog, decoder: str, estimator: str) -> None:
    settings = Settings().replace(SMALL | {"decoder": decoder, "estimator": estimator})
    model = build_model(settings.model, log, 0)
    batch = make_batch(log, np.arange(20))
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(8, 20, model.latent_size, generator=generator)
    cell_noise = model.decoder.noise((8, 20, log.n_items), generator)

    def bound() -> torch.Tensor:
        weights, _ = model.log_weights(batch, noise, model.estimator(marginal=estimator == "marginal"), cell_noise)
        return importance_bound(weights.total).mean()

    before = bound()
    before.backward()
    step, slope = 1e-4, 0.0
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.add_(step * parameter.grad)
                slope += step * float(parameter.grad.square().sum())
        after = bound()
    # To first order, by the length of the gradient squared: the gradient is that of this very bound.
    assert (after - before).item() == pytest.approx(slope, rel=0.1, abs=2e-5)
    assert slope > 1e-4


@pytest.mark.parametrize("decoder", ["categorical", "ordinal", "gaussian"])
@pytest.mark.parametrize("estimator", ["marginal", "sampled"])
def test_training_raises_the_held_out_bound(log: RatingLog, decoder: str, estimator: str) -> None:
    trainer = trainer_of(log, decoder=decoder, estimator=estimator, max_steps=40)
    before = trainer.held_out_bound().mean()
    progress = trainer.run()
    assert progress.best_bound > before + 0.05
    assert [row["step"] for row in progress.history] == list(range(5, 41, 5))
    assert all(np.isfinite(row["bound"]) for row in progress.history)


def test_the_reported_bound_is_the_sum_of_its_terms_for_one_sample(log: RatingLog) -> None:
    seen: list[BoundTerms] = []
    trainer_of(log, samples=1).run(lambda _, terms: seen.append(terms))
    assert len(seen) == 20
    for terms in seen:
        assert terms.bound == pytest.approx(terms.log_p_x + terms.log_p_s - terms.kl, rel=1e-4)
        assert terms.ess == pytest.approx(1)


def test_kept_weights_are_the_moving_average_of_the_steps(log: RatingLog) -> None:
    trainer = trainer_of(log, max_steps=12, evaluate_every=12, average_decay=0.7)
    seen: list[torch.Tensor] = []
    trainer.run(lambda at, _: seen.append(at.model.decoder.weight.detach().clone()))
    wanted = seen[0]
    for weight in seen[1:]:
        wanted = 0.7 * wanted + 0.3 * weight
    torch.testing.assert_close(trainer.model.decoder.weight.detach(), wanted)
    last = trainer_of(log, max_steps=12, evaluate_every=12, average_decay=0)
    last.run()
    torch.testing.assert_close(last.model.decoder.weight.detach(), seen[-1])


def test_a_seed_gives_the_same_weights_and_another_seed_others(log: RatingLog) -> None:
    runs = [trainer_of(log, seed=seed) for seed in (0, 0, 1)]
    for trainer in runs:
        trainer.run()
    assert same(weights_of(runs[0]), weights_of(runs[1]))
    assert not same(weights_of(runs[0]), weights_of(runs[2]))


def test_global_generators_are_neither_read_nor_moved(log: RatingLog) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = trainer_of(log)
    first.run()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    second = trainer_of(log)
    second.run()
    assert same(weights_of(first), weights_of(second))


def test_ratings_of_held_out_users_do_not_reach_the_weights(log: RatingLog) -> None:
    first = trainer_of(log, evaluate_every=20)  # a single look, at the end: its weights are the best ones
    held_out = set(first.held_out.tolist())
    assert held_out
    assert not held_out & set(first.train_users.tolist())
    changed = log.ratings.copy()
    changed[np.isin(log.rows, first.held_out)] = 1.0
    other_log = RatingLog.from_arrays(
        log.users.take(log.rows),
        log.catalogue.take(log.items),
        changed,
        scale=log.scale,
        user_ids=log.users,
        catalogue=log.catalogue,
    )
    second = trainer_of(log, evaluate_every=20)
    second.log = other_log
    bounds = [trainer.run().best_bound for trainer in (first, second)]
    assert bounds[0] != bounds[1]
    assert same(weights_of(first), weights_of(second))


def test_users_without_ratings_are_in_neither_set(log: RatingLog) -> None:
    trainer = trainer_of(log)
    everyone = np.sort(np.concatenate([trainer.train_users, trainer.held_out]))
    np.testing.assert_array_equal(everyone, np.flatnonzero(np.diff(log.indptr)))
    whole = trainer_of(log, stop="never")
    assert len(whole.held_out) == 0
    np.testing.assert_array_equal(whole.train_users, everyone)


def test_early_stopping_restores_the_best_weights(log: RatingLog) -> None:
    # A rate this high overshoots soon.
    trainer = trainer_of(log, learning_rate=0.5, patience=2, rate_cuts=1, max_steps=2000, gradient_clip=1e6)
    looks: list[dict[str, torch.Tensor]] = []
    progress = trainer.run(on_look=lambda at: looks.append(weights_of(at)))
    assert progress.step < 2000
    assert progress.rate_cuts == 1
    held_out = [row["held_out"] for row in progress.history]
    assert progress.best_bound == max(held_out)
    kept = [row for row in progress.history if row["kept"]][-1]
    assert progress.best_step == kept["step"]
    assert held_out[-1] < kept["held_out"] <= progress.best_bound
    assert trainer.held_out_bound().mean().item() == pytest.approx(kept["held_out"], rel=1e-6)
    rates = sorted({row["learning_rate"] for row in progress.history})
    assert rates == pytest.approx([0.125, 0.5])


@pytest.mark.parametrize(
    ("looks", "kept"),
    [
        ([-5.0, -4.0, -4.5, -4.5, -4.5], 2),  # worse by far more than its standard error
        ([-5.0, -4.0, -4.05, -4.08, -4.05], 4),  # no worse, but for the look that ends the training
        ([-5.0, -4.0, -4.05, -4.5, -3.9, -4.5, -4.5, -4.5], 5),
    ],
)
def test_the_last_weights_that_held_out_users_cannot_tell_from_the_best_are_kept(
    log: RatingLog, monkeypatch: pytest.MonkeyPatch, looks: list[float], kept: int
) -> None:
    trainer = trainer_of(log, stop="held-out", patience=3, rate_cuts=0, max_steps=1000)

    def bounds() -> torch.Tensor:
        number = len(trainer.progress.history)
        noise = torch.randn(100, generator=torch.Generator().manual_seed(number), dtype=torch.float64)
        return looks[number] + noise - noise.mean()  # differences of two looks have a standard error of .14

    monkeypatch.setattr(trainer, "held_out_bound", bounds)
    progress = trainer.run()
    assert len(progress.history) == len(looks)
    assert progress.best_bound == pytest.approx(max(looks))
    assert progress.best_step == 5 * kept
    assert [row["kept"] for row in progress.history][kept - 1 :] == [1.0] + [0.0] * (len(looks) - kept)


def test_a_rate_is_cut_once_unless_averaged_weights_are_judged_by_held_out_users(log: RatingLog) -> None:
    cuts = {
        tuple(changes.values()): trainer_of(log, **changes).config.rate_cuts
        for changes in (
            {"stop": "held-out", "average_decay": 0.99},
            {"stop": "held-out", "average_decay": 0.0},
            {"stop": "held-out", "item_weights": "point", "sampled_items": 4},
            {"stop": "converged", "item_weights": "variational"},
        )
    }
    assert list(cuts.values()) == [0, 1, 1, 1]


def test_without_early_stopping_the_last_weights_are_kept(log: RatingLog) -> None:
    trainer = trainer_of(log, stop="never", max_steps=13)
    last: list[dict[str, torch.Tensor]] = []
    progress = trainer.run(lambda at, _: last.append(weights_of(at)))
    assert progress.step == 13 == len(last)
    assert same(weights_of(trainer), last[-1])
    assert [row["step"] for row in progress.history] == [5, 10, 13]


def test_convergence_is_judged_on_all_users_and_keeps_the_last_weights(log: RatingLog) -> None:
    trainer = trainer_of(log, stop="converged", item_weights="variational", max_steps=5000, patience=2)
    last: list[dict[str, torch.Tensor]] = []
    progress = trainer.run(lambda at, _: last.append(weights_of(at)))
    np.testing.assert_array_equal(trainer.train_users, np.flatnonzero(np.diff(log.indptr)))
    assert progress.step < 5000
    assert progress.rate_cuts == trainer.config.rate_cuts
    assert same(weights_of(trainer), last[-1])
    watched = [row["watched"] for row in progress.history]
    assert progress.best_bound in watched[:-2]
    assert max(watched[-2:]) < progress.best_bound + 0.1  # the last looks brought nothing
    assert watched[-1] > watched[0] + 0.2
    trainer.average = None
    assert trainer.watched_bound().mean().item() == pytest.approx(watched[-1], rel=1e-6)


def test_what_is_watched_is_the_objective_of_users_trained_on(log: RatingLog) -> None:
    """Its mean is that of the bound over draws of the weights and of z, less the weights' cost for each user."""
    trainer = trainer_of(log, stop="converged", item_weights="variational", samples=200, proposal="encoder")
    found = trainer.watched_bound().numpy()
    np.testing.assert_array_equal(trainer.watched, trainer.train_users)  # so few are all watched
    bounds = []
    for number in range(40):
        loss = trainer.stepper.loss(number, make_batch(log, trainer.train_users, torch.device("cpu")))
        bounds.append(importance_bound(loss.weights.total).detach().numpy())
    expected = np.mean(bounds, 0) - trainer.weight_cost().item() / len(found)
    error = np.std(np.mean(bounds, 1), ddof=1) * np.sqrt(1 / 4 + 1 / 40)
    assert abs(found.mean() - expected.mean()) < 4 * error
    assert np.corrcoef(found, expected)[0, 1] > 0.98


@pytest.mark.parametrize(("weights", "expected"), [("variational", "converged"), ("point", "held-out")])
def test_weights_with_a_posterior_need_nobody_held_out(log: RatingLog, weights: str, expected: str) -> None:
    trainer = trainer_of(log, stop="auto", item_weights=weights)
    assert trainer.config.stop == expected
    assert (len(trainer.held_out) > 0) == (expected == "held-out")


@pytest.mark.parametrize("missing", ["shared", "per-item", "per-level"])
@pytest.mark.parametrize("sign", ["positive", "negative"])
def test_a_strong_prior_holds_the_selection_at_its_median(log: RatingLog, missing: str, sign: str) -> None:
    found = {}
    for sd in (0.01, None):
        trainer = trainer_of(log, missing=missing, sign=sign, selection_prior_sd=sd, stop="never", max_steps=60)
        found[sd] = trainer.run().history[-1]["selection"]
    assert found[0.01] == pytest.approx(1.2 if sign == "positive" else -1.2, rel=0.03)
    assert abs(abs(found[None]) - 1.2) > 0.1  # the ratings would have it elsewhere


def test_max_steps_is_kept(log: RatingLog) -> None:
    assert trainer_of(log, max_steps=7).run().step == 7


def test_divergence_is_an_error_and_the_last_good_weights_stay(log: RatingLog) -> None:
    trainer = trainer_of(log)
    at_look: list[dict[str, torch.Tensor]] = []

    def spoil(at: Trainer, _: BoundTerms) -> None:
        if at.progress.step == 7:
            with torch.no_grad():
                at.model.decoder.bias.fill_(torch.nan)

    with pytest.raises(DivergedError, match=r"not finite at step 8 .*learning rate .*try a smaller"):
        trainer.run(spoil, lambda at: at_look.append(weights_of(at)))
    assert len(at_look) == 1
    assert same(trainer.best, at_look[0])


def test_weight_prior_shrinks_the_items_to_their_mean(log: RatingLog) -> None:
    spread, size = [], []
    for sd in (None, 0.01):
        trainer = trainer_of(log, item_weights="point", weight_prior_sd=sd, max_steps=60, stop="never")
        trainer.run()
        weight = trainer.model.decoder.weight
        spread.append((weight - weight.mean(1, keepdim=True)).square().mean().item())
        size.append(weight.mean(1).abs().max().item())
    assert spread[1] < 0.2 * spread[0]
    assert size[1] > 0.1  # the user's level is not held back


def test_known_mechanism_is_not_trained(log: RatingLog) -> None:
    points = ((1.0, 0.2), (3.0, 0.4))
    trainer = trainer_of(log, missing="known", known_propensities=points)
    trainer.run()
    assert (trainer.model.missing.item_bias == 0).all()
    ratings = torch.tensor([1.0, 2.0, 3.0])
    pi = torch.sigmoid(trainer.model.missing.logit(ratings[:, None], slice(None)))[:, 0]
    middle = 1 / (1 + 6**0.5)  # half-way in the log-odds
    torch.testing.assert_close(pi, torch.tensor([0.2, middle, 0.4]).float())


def test_bfloat16_runs_and_stays_near_single_precision(log: RatingLog) -> None:
    bounds = []
    for precision in ("float32", "bfloat16"):
        trainer = trainer_of(log, precision=precision, max_steps=1, evaluate_every=1)
        trainer.run()
        bounds.append(trainer.progress.history[0]["bound"])
        assert all(tensor.dtype == torch.float32 for tensor in trainer.model.parameters())
    assert bounds[0] != bounds[1]
    assert bounds[1] == pytest.approx(bounds[0], abs=0.1)


def test_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="device 'quantum' is not available here; use 'auto' or 'cpu'"):
        pick_device("quantum")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="device 'cuda' is not available here; use 'auto' or 'cpu'"):
            pick_device("cuda")
        assert pick_device("auto") == torch.device("cpu")


def test_training_runs_on_every_device(log: RatingLog, device: str) -> None:
    trainer = trainer_of(log, device=device, missing="per-level", sign="free")
    progress = trainer.run()
    assert np.isfinite(progress.best_bound)
    assert next(trainer.model.parameters()).device.type == device


def test_log_with_one_rater_cannot_hold_anyone_out() -> None:
    matrix = np.full((3, 4), np.nan)
    matrix[1, :3] = [1, 2, 3]
    with pytest.raises(ConfigError, match="stop='held-out' needs two users"):
        trainer_of(log_of(matrix))
    assert trainer_of(log_of(matrix), stop="never").run().step == 20


def test_starting_values_come_from_the_log() -> None:
    matrix = np.full((200, 3), np.nan)
    matrix[:150, 0], matrix[:20, 1], matrix[:199, 2] = 3, 1, 2
    log = log_of(matrix)
    for decoder in ("categorical", "ordinal", "gaussian"):
        model = build_model(Settings().replace(SMALL | {"decoder": decoder}).model, log, 0)
        with torch.no_grad():
            rated = torch.sigmoid(model.missing.item_bias)
            mean = model.decoder.cells(torch.zeros(1, 1, 2)).mean[0, 0]
        np.testing.assert_allclose(rated, [0.75, 0.1, 0.995], atol=0.01)
        assert mean[0] > mean[2] + 0.3
        assert mean[2] > mean[1] + 0.3


@pytest.mark.parametrize("sampled_items", ["all", 4])
def test_checkpoints_hold_plain_tensors_only(tmp_path: Path, log: RatingLog, sampled_items: str | int) -> None:
    from mnar_recsys.training import load_checkpoint, save_checkpoint

    changes = {"max_steps": 10, "item_weights": "point", "sampled_items": sampled_items}
    trainer = trainer_of(log, **changes)
    trainer.run()
    path = tmp_path / "state.safetensors"
    save_checkpoint(
        path,
        model=trainer.model,
        best=trainer.best,
        highest=trainer.highest,
        average=trainer.average,
        optimizers=trainer.stepper.optimizers,
        progress=trainer.progress,
        fingerprint="print",
    )
    fresh = trainer_of(log, **changes)
    best, highest, progress = load_checkpoint(path, fresh.model, fresh.average, fresh.stepper.optimizers, "print")
    assert same(best, trainer.best)
    assert torch.equal(highest, trainer.highest)
    assert progress == trainer.progress
    assert same(weights_of(fresh), weights_of(trainer))
    for mine, theirs in zip(fresh.stepper.optimizers, trainer.stepper.optimizers, strict=True):
        one, other = mine.state_dict()["state"], theirs.state_dict()["state"]
        assert one.keys() == other.keys()
        for index, state in one.items():
            assert all(torch.equal(torch.as_tensor(state[key]), torch.as_tensor(other[index][key])) for key in state)
    assert [path.name for path in tmp_path.iterdir()] == ["state.safetensors"]
    assert isinstance(trainer.model, nn.Module)
