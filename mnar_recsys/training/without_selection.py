"""A second fit whose mask does not depend on the rating, kept where the log is explained no worse by it.

On a log where the rating decides nothing, training ends at a selection of a nat all the same, and where weights are
points predictions are a tenth worse than without one. What training stopped by tells the two apart (docs/inference.md):
the bound of held-out users, or the objective, in which a posterior's divergence from its prior weighs what it explains.
"""

from collections.abc import Callable

import numpy as np
from torch import Tensor

from mnar_recsys.config import Settings
from mnar_recsys.model.mnar_vae import MnarVae
from mnar_recsys.rng import numpy_generator
from mnar_recsys.training.state import copy_weights
from mnar_recsys.training.terms import BoundTerms
from mnar_recsys.training.trainer import LEAST_GAIN, Trainer, within_an_error

# Nats a user that a fit is not going to make up for, if it is so far behind the other after as many steps as these.
_TOO_FAR, _EARLY = 0.3, 300
# Users trained on whose objective is compared, where nobody is held out.
_COMPARED_USERS = 4_000


def keep_if_no_worse_without(
    trainer: Trainer, model: MnarVae, settings: Settings, on_step: Callable[[Trainer, BoundTerms], None] | None = None
) -> bool:
    """Fit ``model``, fresh from ``build_model``, without selection; take its weights if it explains the log no worse.

    Parameters
    ----------
    trainer : Trainer
        A finished run. If the other fit is no worse, up to its standard error and what training does not go on for, its
        model gets the other's weights and its progress the other's history.
    model : MnarVae
        Of the same settings; its slopes are set to nothing and stay there.
    settings : Settings
        Of both.
    on_step : callable, optional
        As in ``Trainer.run``.

    Returns
    -------
    bool
        Whether the selection was given up.
    """
    slopes = model.missing.slopes()
    if slopes is None:
        return False
    slopes.shut()
    other = Trainer(model, trainer.log, settings, seed=trainer.seed)

    reached = {row["step"]: row["watched"] for row in trainer.progress.history}

    def give_up(at: Trainer) -> None:
        now = at.progress.history[-1]
        behind = reached.get(now["step"], trainer.progress.best_bound) - now["watched"]
        at.progress.finished = at.progress.finished or (now["step"] >= _EARLY and behind > _TOO_FAR)

    other.run(on_step, give_up)
    if not within_an_error(_explained(trainer) - _explained(other) - LEAST_GAIN):
        return False
    trainer.model.load_state_dict(copy_weights(other.model))
    trainer.progress = other.progress
    return True


def _explained(trainer: Trainer) -> Tensor:
    """Return the bound of held-out users at its best, or of users trained on as the run left them, in nats: (W,)."""
    if len(trainer.held_out):
        return trainer.highest
    shuffled = numpy_generator(trainer.seed, "compared users").permutation(trainer.train_users)
    return trainer.bound_on(np.sort(shuffled[:_COMPARED_USERS]))
