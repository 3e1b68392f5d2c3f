"""A search for settings by the joint bound of held-out users: Optuna's, kept in a folder, to be gone on with.

A trial is scored as ``model_selection`` scores a candidate: same users, same number of importance samples, missing
ratings summed out. It is given up where, at a look in the middle of its training, its best rough bound of some of these
users is below the median of the others' at that look. No randomly collected rating takes part, but for those that are
trained on as labels.

What is tried next depends on the seed, on how many trials have ended and on how, and on nothing else: a search that was
interrupted goes on to the same trials as one that was not, bit for bit on a CPU. Only the seconds differ.
"""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnar_recsys.config import Settings
from mnar_recsys.data import RatingLog, add_survey
from mnar_recsys.errors import ConfigError, DivergedError
from mnar_recsys.extras import check_extra
from mnar_recsys.files import atomic_path, write_text
from mnar_recsys.model_folder import fingerprint
from mnar_recsys.model_selection import HeldOutUsers
from mnar_recsys.recommender import OnStep
from mnar_recsys.rng import torch_seed
from mnar_recsys.search_space import Range, search_space
from mnar_recsys.training import BoundTerms, Trainer
from mnar_recsys.tuning.result import Outcome, Trial, Tuning
from mnar_recsys.tuning.study import open_study

if TYPE_CHECKING:
    import optuna

TRIALS = 30
"""Trials where no number is given."""
TABLE = "trials.csv"
BEST = "best.json"
FIRST_AT_RANDOM = 10
"""Trials before the sampler learns from them, the first among them."""
_RESULT = "result"


def tune_settings(
    log: RatingLog,
    settings: Settings | None = None,
    *,
    folder: str | Path,
    trials: int = TRIALS,
    fixed: tuple[str, ...] = (),
    space: Mapping[str, Range] | None = None,
    labels: RatingLog | None = None,
    seed: int = 0,
    resume: bool = False,
    on_trial: Callable[[Tuning], None] | None = None,
    on_step: OnStep | None = None,
) -> Tuning:
    """Search for the settings with the highest joint bound of held-out users.

    The first trial is ``settings`` as they are; then come nine at random, then Optuna's tree-structured Parzen
    estimator (Bergstra et al., Algorithms for hyper-parameter optimization, NeurIPS 2011). After each trial ``folder``
    holds ``trials.csv``, ``best.json`` (what differs from the defaults) and ``study.db``, Optuna's own.

    Parameters
    ----------
    log : RatingLog
        Self-selected ratings.
    settings : Settings, optional
        What is not searched, and the first trial. Default: the default settings.
    folder : path
        Must be new or empty, unless ``resume``.
    trials : int
        Trials in all, those before an interruption among them.
    fixed : tuple of str
        Settings to leave as they are; see ``search_space``.
    space : mapping of str to Range, optional
        Default: ``SPACE``.
    labels : RatingLog, optional
        Randomly collected ratings, as for ``MNARRecommender.fit``.
    seed : int
        Fixes who is held out, what is tried, and all fits.
    resume : bool
        Go on with the search in ``folder``; needs the same ratings, settings, ranges and seed.
    on_trial : callable, optional
        Called after each trial with all so far; once before the first, where some were there.
    on_step : callable, optional
        As for ``MNARRecommender.fit``, for each fit.

    Raises
    ------
    ConfigError
        If Optuna is not installed, the settings do not fit the log, or there is nothing to search.
    DataError
        If fewer than 10 users have ratings.
    ModelFolderError
        If the folder is in use, or holds another search, or none that can be resumed.
    """
    check_extra("optuna", "tune", "tuning")
    base = settings or Settings()
    if labels is not None:
        log = add_survey(log, labels)
    if base.resolve_for(log).model.missing == "agnostic":
        raise ConfigError("a missing model of whole rows has no exact bound, so it cannot be tuned; choose another")
    ranges = search_space(base.resolve_for(log), fixed, space)
    users = HeldOutUsers.draw(log, seed)
    users.check(base.resolve_for(log))
    described = {"fingerprint": fingerprint(log, base, seed), "space": repr(ranges)}
    with open_study(Path(folder), described, resume=resume) as study:
        search = _Search(study, users, base, ranges, on_step)
        tuning = search.so_far()
        if tuning.trials:
            _write(tuning, Path(folder), on_trial)
        while len(tuning.trials) < trials:
            search.run_trial(len(tuning.trials))
            tuning = search.so_far()
            _write(tuning, Path(folder), on_trial)
    return tuning


def _write(tuning: Tuning, folder: Path, on_trial: Callable[[Tuning], None] | None) -> None:
    """Write what is known so far, each file whole or not at all."""
    if any(trial.bounds is not None for trial in tuning.trials):
        with atomic_path(folder / TABLE) as path:
            tuning.table.to_csv(path, index=False)
        write_text(folder / BEST, json.dumps(tuning.best_settings.changes(), indent=2) + "\n")
    if on_trial:
        on_trial(tuning)


class _Search:
    """Trials of one study, one after another."""

    def __init__(
        self,
        study: "optuna.Study",
        users: HeldOutUsers,
        base: Settings,
        ranges: Mapping[str, Range],
        on_step: OnStep | None,
    ) -> None:
        resolved = base.resolve_for(users.log)
        values = {**resolved.model.model_dump(), **resolved.training.model_dump()}
        self._study = study
        self._users = users
        self._base = base
        self._ranges = ranges
        self._first = {name: values[name] for name in ranges}
        self._on_step = on_step

    def so_far(self) -> Tuning:
        """Return the trials that have ended by themselves; an interrupted one counts for nothing."""
        import optuna

        ended = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
        found = self._study.get_trials(deepcopy=False, states=ended)
        return Tuning(self._base, tuple(Trial.from_facts(n, one.user_attrs[_RESULT]) for n, one in enumerate(found)))

    def run_trial(self, number: int) -> None:
        """Run the trial that comes after ``number`` others, and tell the study how it ended."""
        import optuna

        states = optuna.trial.TrialState
        trial, changes = self._ask(number)
        watch = _Watch(trial, self._users, self._on_step)
        start = time.perf_counter()
        outcome: Outcome = "finished"
        facts: dict[str, Any] = {}
        try:
            chosen = self._base.replace(changes).resolve_for(self._users.log)
            score = self._users.score(f"trial {number}", chosen, watch)
            facts = {"selection": score.selection, "mean_unrated": score.mean_unrated, "bounds": score.bounds.tolist()}
        except optuna.TrialPruned:
            outcome = "pruned"
        except DivergedError:
            outcome = "diverged"
        except BaseException:
            self._study.tell(trial, state=states.FAIL)
            raise
        facts |= {"changes": changes, "outcome": outcome, "looks": watch.looks, "seconds": time.perf_counter() - start}
        trial.set_user_attr(_RESULT, facts)
        if outcome == "finished":
            self._study.tell(trial, float(score.bounds.mean()))
        else:
            self._study.tell(trial, state=states.PRUNED)

    def _ask(self, number: int) -> tuple["optuna.Trial", dict[str, float]]:
        """Return a trial and what it changes."""
        import optuna

        # A new sampler for each trial: what it draws does not depend on how many runs the search has taken.
        seed = torch_seed(self._users.seed, "trial", number) % 2**32
        self._study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=FIRST_AT_RANDOM)
        if number == 0 and not self._study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.WAITING,)):
            self._study.enqueue_trial(self._first)
        trial = self._study.ask()
        changes = {name: _suggest(trial, name, one) for name, one in self._ranges.items()}
        return trial, changes if number else self._first


def _suggest(trial: "optuna.Trial", name: str, one: Range) -> float:
    if one.is_whole:
        whole: int = trial.suggest_int(name, int(one.low), int(one.high), log=one.is_log)
        return whole
    # Three digits are all that matter, and can be read.
    return float(f"{trial.suggest_float(name, one.low, one.high, log=one.is_log):.3g}")


class _Watch:
    """Called after each step of a fit: looks at the held-out users where the fit does, and ends it if it is behind."""

    def __init__(self, trial: "optuna.Trial", users: HeldOutUsers, on_step: OnStep | None) -> None:
        self.looks = 0
        self._trial = trial
        self._users = users
        self._on_step = on_step

    def __call__(self, trainer: Trainer, terms: BoundTerms) -> None:
        """See ``OnStep``."""
        import optuna

        if self._on_step:
            self._on_step(trainer, terms)
        if len(trainer.progress.history) == self.looks:
            return
        self.looks = len(trainer.progress.history)
        self._trial.report(self._users.rough_bound(trainer.judged), self.looks)
        if self._trial.should_prune():
            raise optuna.TrialPruned
