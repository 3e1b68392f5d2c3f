"""A second fit whose mask does not depend on the rating, kept where held-out users are predicted no worse by it.

Weights that are points overfit the ratings they are fitted to, and a slope takes part in it: on a log where the rating
decides nothing, training ends at a selection of more than a nat, and predictions are a tenth worse than without one.
Held-out users tell the two apart (docs/inference.md).
"""

from collections.abc import Callable

from mnar_recsys.config import Settings
from mnar_recsys.model.mnar_vae import MnarVae
from mnar_recsys.training.state import copy_weights
from mnar_recsys.training.terms import BoundTerms
from mnar_recsys.training.trainer import Trainer

# Nats a user that a fit is not going to make up for once its rate has been cut: cuts gain a tenth of it.
_TOO_FAR = 0.3


def keep_if_no_worse_without(
    trainer: Trainer, model: MnarVae, settings: Settings, on_step: Callable[[Trainer, BoundTerms], None] | None = None
) -> bool:
    """Fit ``model``, fresh from ``build_model``, without selection; take its weights if held-out users favour it.

    Parameters
    ----------
    trainer : Trainer
        A finished run that stopped on held-out users. If the other fit is no worse, its model gets the other's weights
        and its progress the other's history.
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

    def give_up(at: Trainer) -> None:
        behind = trainer.progress.best_bound - at.progress.best_bound
        at.progress.finished = at.progress.finished or (at.progress.rate_cuts > 0 and behind > _TOO_FAR)

    other.run(on_step, give_up)
    if other.progress.best_bound < trainer.progress.best_bound:
        return False
    trainer.model.load_state_dict(copy_weights(other.model))
    trainer.progress = other.progress
    return True
