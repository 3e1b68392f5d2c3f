"""``report``: what stands on the page is what the model says, in one file that needs no other."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import QUICK, Cli

from mnar_recsys.cli import model_report
from mnar_recsys.mask_checks import check_mask
from mnar_recsys.model.posterior_draws import Monitored, PosteriorDraws, SamplingReport
from mnar_recsys.model_card import model_card, selection_by_level, selection_interval
from mnar_recsys.prediction.unrated import mean_of_unrated, shares_of_unrated
from mnar_recsys.recommender import MNARRecommender


class Page(HTMLParser):
    """Headings, images and rows of tables of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.headings: list[str] = []
        self.images: list[str] = []
        self.rows: list[list[str]] = []
        self.opened: list[str] = []
        self.html = path.read_text(encoding="utf-8")
        self.feed(self.html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.opened.append(tag)
        if tag == "svg":
            self.images.append(dict(attributes)["aria-label"] or "")
        if tag == "tr":
            self.rows.append([])
        if tag == "h2":
            self.headings.append("")

    def handle_endtag(self, tag: str) -> None:
        while self.opened and self.opened.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "h2" in self.opened:
            self.headings[-1] += data
        if ("td" in self.opened or "th" in self.opened) and data.strip():
            self.rows[-1].append(data.strip())


MASK = ["Who rates how much?", "What is rated how often?", "How many ratings of each level?"]


def test_a_fit_that_stops_on_held_out_users(cli: Cli, ratings: Path, tmp_path: Path) -> None:
    folder, page = tmp_path / "m", tmp_path / "page.html"
    fit = (*QUICK, "--set", "stop=held-out", "--missing", "per-level", "--set", "item_weights=point")
    assert cli("train", ratings, "--out", folder, *fit).code == 0
    assert cli("report", folder, "--out", page).code == 0
    found = Page(page)
    assert found.headings == [
        "What was said, and what was not", "Why ratings are given", *MASK, "Training", "Use and limits", "This model"
    ]  # fmt: skip
    assert not re.search(r"<(script|link|img|iframe)|https?://(?!www\.w3\.org)|@import|url\((?!#)", found.html)
    recommender = MNARRecommender.load(folder)
    for rating, value in selection_by_level(recommender.fitted).items():
        assert [f"{rating:g}", f"{value:+.2f}"] in found.rows
    shares = shares_of_unrated(recommender.predictor)
    given = np.bincount(recommender.fitted.log.ratings.astype(int), minlength=6)[1:] / recommender.fitted.log.n_ratings
    for level, (said, unsaid) in enumerate(zip(given, shares, strict=True), start=1):
        assert [str(level), f"{100 * said:.1f} %", f"{100 * unsaid:.1f} %"] in found.rows
    assert any("users held out" in image for image in found.images)
    assert ["setting: max_steps", "20"] in found.rows
    again = tmp_path / "again.html"
    assert cli("report", folder, "--out", again).code == 0
    assert again.read_bytes() == page.read_bytes()


def test_a_sampled_posterior_has_intervals_and_its_chains(model: Path, tmp_path: Path) -> None:
    recommender = MNARRecommender.load(model)
    fitted = recommender.fitted
    slopes = {name: one for name, one in fitted.model.named_parameters() if name.startswith("missing.")}
    noise = torch.Generator().manual_seed(0)
    drawn = {name: one.data + 0.3 * torch.randn(40, *one.shape, generator=noise) for name, one in slopes.items()}
    monitored = (
        Monitored("selection, nats between the ends", 1.234, 0.1, 1.0, 1.5, 1.01, 150.0),
        Monitored("scale of taste", 0.5, 0.1, 0.3, 0.7, 1.2, 12.0),
    )
    report = SamplingReport(2, 20, 20, 1.0, 10.0, 3, monitored)
    recommender._fitted = replace(fitted, draws=PosteriorDraws(drawn, None, report))
    checks = check_mask(fitted.model, fitted.log, replicates=20)
    model_report.write_model_report(recommender, checks, tmp_path / "page.html")
    found, fitted = Page(tmp_path / "page.html"), recommender.fitted
    assert ["selection, nats between the ends", "1.23", "[1, 1.5]", "1.010", "150", "yes"] in found.rows
    assert ["scale of taste", "0.5", "[0.3, 0.7]", "1.200", "12", "no"] in found.rows
    assert "2 chains of 20 + 20 draws, 3 of them divergent" in found.html
    assert "Not converged: 1 of 2 quantities" in found.html
    by_hand = []
    for number in range(40):
        with fitted.draws.at(fitted.model, number), torch.no_grad():
            by_hand.append(fitted.model.missing.selection(torch.arange(1.0, 6.0)).numpy())
    centred = np.array(by_hand) - np.mean(by_hand, axis=1, keepdims=True)
    low, high = np.quantile(centred, [0.05, 0.95], axis=0)
    ends, card = selection_interval(fitted), model_card(fitted)
    assert ends is not None
    for place, (rating, value) in enumerate(selection_by_level(fitted).items()):
        assert value == pytest.approx(centred[:, place].mean(), abs=1e-6)
        assert ends[rating] == pytest.approx((low[place], high[place]), abs=1e-6)
        interval = f"{low[place]:+.2f} to {high[place]:+.2f}"
        assert [f"{rating:g}", f"{value:+.2f}", interval] in found.rows
        assert f"| {rating:g} | {value:+.2f} | {interval} |" in card


def test_the_sample_of_unrated_cells_is_one(model: Path) -> None:
    predictor = MNARRecommender.load(model).predictor
    shares = shares_of_unrated(predictor, seed=3)
    assert shares.sum() == pytest.approx(1, abs=1e-5)
    assert shares @ np.arange(1, 6) == pytest.approx(mean_of_unrated(predictor, seed=3)[0], abs=1e-4)


def test_a_real_scale_has_no_levels_to_count(cli: Cli, ratings: Path, tmp_path: Path) -> None:
    folder, page = tmp_path / "m", tmp_path / "page.html"
    assert cli("train", ratings, "--out", folder, "--scale", "1,5,real", *QUICK).code == 0
    assert cli("report", folder, "--out", page).code == 0
    assert "The scale has no levels to count" in Page(page).html


def test_refusals_leave_no_page(cli: Cli, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "unknown file type '.pdf'; use .html" in cli("report", model, "--out", tmp_path / "a.pdf").error()
    assert "no such model folder" in cli("report", tmp_path / "none", "--out", tmp_path / "a.html").error()

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(model_report, "mean_of_unrated", stop)
    assert cli("report", model, "--out", tmp_path / "a.html").code == 130
    assert not list(tmp_path.iterdir())
