"""Sampling the posterior with progress on stderr, and what is said of the chains."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from mnar_recsys.cli.progress import Advance, progress
from mnar_recsys.cli.terminal import table, warn
from mnar_recsys.config import Settings
from mnar_recsys.model.posterior_draws import SamplingReport
from mnar_recsys.model_card import sampling_doubt
from mnar_recsys.training.mcmc import ChainState, OnDraw


@contextmanager
def sampling_progress(settings: Settings, on_start: Callable[[], None]) -> Iterator[OnDraw]:
    """Give a callback for ``fit`` that shows the draws; ``on_start`` is called at the first, to end what was shown."""
    training = settings.training
    total = training.mcmc_chains * (training.mcmc_warmup + training.mcmc_draws)
    with ExitStack() as stack:
        shown: list[Advance] = []

        def on_draw(state: ChainState) -> None:
            if not shown:
                on_start()
                shown.append(stack.enter_context(progress("sampling", total, "draws,")))
            shown[0](1, _status(state))

        yield on_draw


def _status(state: ChainState) -> str:
    stage = "warming up" if state.is_warmup else "drawing"
    values = [f"{name.split(',')[0]} {value:.2f}" for name, value in list(state.monitored.items())[:2]]
    return f"chain {state.chain + 1} {stage}, {', '.join(values)}"


def sampling_table(report: SamplingReport) -> str:
    """Return what was monitored, as a table under a line on the chains."""
    rows = [
        [one.name, f"{one.mean:.4g}", f"{one.sd:.2g}", f"{one.lower:.4g}", f"{one.upper:.4g}", f"{one.r_hat:.3f}",
         f"{one.ess:.0f}"]
        for one in report.monitored
    ]  # fmt: skip
    title = (
        f"Sampled posterior: {report.chains} chains of {report.warmup} + {report.draws} draws, {report.gradients:.0f} "
        f"gradients a draw, {report.divergences} divergences"
    )
    return f"{title}\n{table(['quantity', 'mean', 'sd', '5 %', '95 %', 'R-hat', 'draws'], rows)}"


def warn_of_chains(report: SamplingReport) -> None:
    """Warn where the chains have not mixed."""
    if report.doubtful:
        warn(f"the chains have not converged: {sampling_doubt(report)}")
    if report.divergences:
        warn(
            f"{report.divergences} of {report.chains * report.draws} draws diverged: a part of the posterior may not "
            "have been reached"
        )
