"""``train``: what it writes and says, and every way in which its input can be bad."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from commands import QUICK, Cli, write_ratings

from mnar_recsys.model_card import selection_by_level
from mnar_recsys.model_folder import read_model
from mnar_recsys.recommender import MNARRecommender

HEADER = "user,item,rating\n"
GOOD = HEADER + "1,1,5\n1,2,3\n2,1,1\n2,3,4\n3,2,2\n"


def test_a_model_folder_and_a_summary(cli: Cli, ratings: Path, tmp_path: Path) -> None:
    result = cli("train", ratings, "--out", tmp_path / "m", *QUICK, "--scale", "1,5", "--seed", 3)
    assert result.code == 0
    expected = {"card.md", "config.json", "history.csv", "ratings.parquet", "vocab.parquet", "weights.safetensors"}
    assert {path.name for path in (tmp_path / "m").iterdir()} == expected
    assert "scale: 5 levels from 1 to 5 (given)" in result.err
    assert "20 steps on all users (max_steps reached before the bound converged)" in result.out
    fitted = read_model(tmp_path / "m")
    for rating, log_odds in selection_by_level(fitted).items():
        assert f"{rating:g}".ljust(6) + f"{log_odds:+.2f}".rjust(10) in result.out
    assert f"{fitted.log.values.mean():.3f}" in result.out
    assert "\x1b" not in result.out + result.err  # no colours where there is no terminal


def test_settings_from_preset_options_and_assignments(cli: Cli, ratings: Path, tmp_path: Path) -> None:
    options = ["--preset", "yahoo-r3", "--decoder", "categorical", "--missing", "per-level", "--sign", "negative"]
    assignments = ["--set", "weight_prior_sd=none", "--set", "latent_size=4", "--set", "user_activity=yes"]
    result = cli("train", ratings, "--out", tmp_path / "m", *options, *assignments, *QUICK)
    assert result.code == 0
    model = read_model(tmp_path / "m").settings.model
    assert (model.decoder, model.missing, model.sign) == ("categorical", "per-level", "negative")
    assert (model.weight_prior_sd, model.latent_size, model.user_activity) == (None, 4, True)
    assert model.estimator == "sampled"  # from the preset


def test_known_propensities(cli: Cli, ratings: Path, tmp_path: Path) -> None:
    given = ["--known-propensities", "1=.1,3=.2,5=.4"]
    assert cli("train", ratings, "--out", tmp_path / "m", *given, *QUICK).code == 0
    settings = read_model(tmp_path / "m").settings.model
    assert settings.missing == "known"
    assert settings.known_propensities == ((1.0, 0.1), (3.0, 0.2), (5.0, 0.4))


def test_more_items_than_were_rated(cli: Cli, ratings: Path, tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("name,item\nold,3\nnew,900\nnewer,901\n")
    result = cli("train", ratings, "--out", tmp_path / "m", "--items", tmp_path / "items.csv", *QUICK)
    assert "2 items without ratings added" in result.err
    assert read_model(tmp_path / "m").log.catalogue.index([900, 901]).min() >= 0


def test_says_loudly_that_the_data_contradict_the_sign(
    cli: Cli, ratings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = MNARRecommender.fit

    def fit(self: MNARRecommender, *arguments: Any, **options: Any) -> MNARRecommender:
        """Fit, then push the slope to its boundary."""
        original(self, *arguments, **options)
        with torch.no_grad():
            self.fitted.model.missing.get_parameter("slope.raw").fill_(-20.0)
        return self

    monkeypatch.setattr(MNARRecommender, "fit", fit)
    arguments = ("train", ratings, "--missing", "shared", *QUICK)
    loud = cli(*arguments, "--out", tmp_path / "a").warnings()
    assert len(loud) == 1
    assert "do not support --sign positive" in loud[0]
    assert "--sign free" in loud[0]
    assert cli(*arguments, "--sign", "negative", "--out", tmp_path / "b").warnings() != []


def test_quiet_where_the_data_agree_with_the_sign(cli: Cli, ratings: Path, tmp_path: Path) -> None:
    assert cli("train", ratings, "--out", tmp_path / "m", *QUICK).warnings() == []


def binary(_: Path) -> bytes:
    return bytes(range(256)) * 4


def truncated_gzip(_: Path) -> bytes:
    return gzip.compress((HEADER + "".join(f"{row},{row},3\n" for row in range(5000))).encode())[:-2000]


def truncated_parquet(folder: Path) -> bytes:
    whole = folder / "whole.parquet"
    pq.write_table(pa.table({"user": [1, 2], "item": [1, 2], "rating": [1, 5]}), whole)
    return whole.read_bytes()[:-20]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("r.csv", None, ["does not exist"]),
        ("r.csv", "", ["is empty"]),
        ("r.csv", HEADER, ["no rows"]),
        ("r.csv", binary, ["expected UTF-8 text"]),
        ("r.csv", GOOD.encode("utf-16"), ["UTF-16"]),
        ("r.csv", GOOD[:-3], ["line 6", "truncated"]),
        ("r.csv.gz", truncated_gzip, ["truncated"]),
        ("r.parquet", truncated_parquet, ["not a whole Parquet file"]),
        ("r.parquet", GOOD, ["not a whole Parquet file"]),
        ("r.csv", "user,thing,rating\n1,2,3\n", ["column item missing", "--columns"]),
        ("r.csv", GOOD[len(HEADER) :], ["expected a header"]),
        ("r.csv", GOOD + "4,1\n5,1,2\n", ["line 7", "2 cells, expected 3"]),
        ("r.csv", GOOD + "4,1,good\n", ["line 7, column rating", "'good'", "finite number"]),
        ("r.csv", GOOD + "4,1,NaN\n", ["line 7, column rating", "NaN"]),
        ("r.csv", GOOD + "4,1,inf\n", ["line 7, column rating", "inf"]),
        ("r.csv", GOOD + "4,1,\n", ["line 7, column rating", "empty"]),
        ("r.csv", GOOD + "1,2,4\n", ["line 7: user 1, item 2", "line 3", "--duplicates last"]),
        ("r.csv", HEADER + "1,1,5\n1,2,3\n", ["one user"]),
        ("r.csv", HEADER + "1,1,5\n2,1,3\n", ["one item"]),
        ("r.csv", GOOD + "bob,1,4\n", ["line 7, column user", "'bob'", "--ids text"]),
        ("r.csv", GOOD + ",1,4\n", ["line 7, column user", "empty"]),
        ("r.csv", HEADER + "1,1,3\n1,2,3\n2,1,3\n", ["scale cannot be inferred", "--scale"]),
    ],
)
def test_bad_files(cli: Cli, tmp_path: Path, name: str, content: Any, expected: list[str]) -> None:
    path = tmp_path / name
    if content is not None:
        data = content(tmp_path) if callable(content) else content
        path.write_bytes(data.encode() if isinstance(data, str) else data)
    line = cli("train", path, "--out", tmp_path / "m", *QUICK).error()
    assert str(path) in line
    assert all(part in line for part in expected), line
    assert not (tmp_path / "m").exists()
    if name.endswith("csv"):
        assert str(path) in cli("inspect", path).error()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--scale", "1,4"], ["line 2", "found rating 5", "4 levels from 1 to 4"]),
        (["--scale", "one to five"], ["low,high"]),
        (["--scale", "5,1"], ["low < high"]),
        (["--set", "latent=3"], ["unknown setting 'latent'", "latent_size"]),
        (["--set", "latent_size"], ["key=value"]),
        (["--set", "latent_size=many"], ["latent_size", "whole number", "many"]),
        (["--set", "latent_size=0"], ["latent_size", "greater than or equal to 1"]),
        (["--set", "seed=1"], ["unknown setting 'seed'"]),
        (["--set", "samples=3", "--set", "samples=4"], ["'samples' is given twice"]),
        (["--decoder", "gaussian", "--set", "decoder=gaussian"], ["'decoder' is given twice"]),
        (["--set", "device=abacus"], ["device 'abacus'", "cpu"]),
        (["--preset", "yahoo-r4"], ["unknown preset 'yahoo-r4'", "yahoo-r3"]),
        (["--missing", "known"], ["known_propensities"]),
        (["--known-propensities", "1=.1,9=.2"], ["known_propensities", "found 9"]),
        (["--missing", "shared", "--known-propensities", "1=.1,5=.2"], ["only with it", "some with missing"]),
        (["--known-propensities", "1:.1,5:.2"], ["rating=propensity", "1:.1,5:.2"]),
        (["--known-propensities", "1=.1"], ["at least two"]),
        (["--known-propensities", "1=.1,5=1.2"], ["strictly between 0 and 1", "1.2"]),
        (["--scale", "1,5,real", "--decoder", "categorical"], ["needs rating levels", "aussian"]),
        (["--duplicates", "first"], ["error, last or mean", "'first'"]),
        (["--layout", "excel"], ["layout", "'excel'"]),
        (["--ids", "numbers"], ["auto or text", "'numbers'"]),
        (["--columns", "a,b"], ["3 or 4 names", "'a,b'"]),
        (["--columns", "a,b,c"], ["line 1", "a, b, c"]),
        (["--items", "absent.csv"], ["absent.csv", "does not exist"]),
        (["--resume"], ["no checkpoint to resume"]),
    ],
)
def test_bad_options(cli: Cli, tmp_path: Path, options: list[str], expected: list[str]) -> None:
    path = tmp_path / "r.csv"
    path.write_text(GOOD)
    line = cli("train", path, "--out", tmp_path / "m", *options).error()
    assert all(part in line for part in expected), line
    assert not (tmp_path / "m").exists()


def test_a_folder_in_use_is_refused_before_any_work(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "thesis.txt").write_text("mine")
    line = cli("train", "absent.csv", "--out", tmp_path / "m").error()
    assert "not empty" in line
    assert (tmp_path / "m" / "thesis.txt").read_text() == "mine"


def test_a_folder_that_cannot_be_written_to(cli: Cli, ratings: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    line = cli("train", ratings, "--out", tmp_path / "file" / "m").error()
    assert "cannot be written to" in line


@pytest.mark.parametrize("steps_before", [0, 10])
def test_a_loss_that_is_not_finite(
    cli: Cli, ratings: Path, tmp_path: Path, steps_before: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stops, says at which step and what to try, and keeps the last checkpoint."""
    from mnar_recsys.training import Trainer

    step = Trainer.step

    def spoiled(self: Trainer) -> Any:
        if self.progress.step == steps_before:
            with torch.no_grad():
                next(iter(self.model.parameters())).fill_(np.nan)
        return step(self)

    monkeypatch.setattr(Trainer, "step", spoiled)
    line = cli("train", ratings, "--out", tmp_path / "m", *QUICK).error()
    assert f"not finite at step {steps_before + 1}" in line
    assert "smaller learning_rate" in line
    assert (tmp_path / "m" / "checkpoint.safetensors").exists() == (steps_before >= 10)


def test_a_learning_rate_that_diverges(cli: Cli, ratings: Path, tmp_path: Path) -> None:
    line = cli("train", ratings, "--out", tmp_path / "m", *QUICK, "--set", "learning_rate=1e30").error()
    assert "not finite at step" in line
    assert not (tmp_path / "m").exists()


def test_a_folder_resumed_with_other_settings(cli: Cli, ratings: Path, model: Path) -> None:
    assert "these ratings, settings and seed" in cli("train", ratings, "--out", model, "--resume").error()
    again = cli("train", ratings, "--out", model, "--resume", *QUICK)
    assert again.code == 0  # the very run, finished already


def test_a_full_disk_at_the_first_checkpoint_leaves_nothing(
    cli: Cli, ratings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mnar_recsys.model.tensor_file.save_file", full)
    line = cli("train", ratings, "--out", tmp_path / "m", *QUICK).error()
    assert "No space left on device" in line
    assert "weights.safetensors" in line
    assert not (tmp_path / "m").exists()


def test_text_ids_and_named_columns(cli: Cli, tmp_path: Path) -> None:
    path = write_ratings(tmp_path / "r.csv")
    path.write_text(path.read_text().replace("user,item,rating", "who,what,stars"))
    options = ["--columns", "who,what,stars", "--ids", "text"]
    assert cli("train", path, "--out", tmp_path / "m", *options, *QUICK).code == 0
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    assert config["scale"] == {"low": 1.0, "high": 5.0, "step": 1.0}
    assert read_model(tmp_path / "m").log.users.is_text


def test_features_from_files(cli: Cli, ratings: Path, tmp_path: Path) -> None:
    users, items = tmp_path / "users.csv", tmp_path / "items.csv"
    users.write_text("user,city\n" + "".join(f"{user},{'ab'[user % 2]}\n" for user in range(200)))
    items.write_text("item,price\n" + "".join(f"{item},{item / 3}\n" for item in range(200)))
    options = ["--user-features", users, "--item-features", items]
    assert cli("train", ratings, "--out", tmp_path / "m", *options, *QUICK).code == 0
    log = read_model(tmp_path / "m").log
    assert log.user_features.names[:2] == ("city=a", "city=b")
    assert log.item_features.names == ("price",)
    line = cli("train", ratings, "--out", tmp_path / "n", "--user-features", tmp_path / "none.csv").error()
    assert str(tmp_path / "none.csv") in line


def test_shares_of_the_population(cli: Cli, ratings: Path, tmp_path: Path) -> None:
    given = ["--population-marginal", ".5,.2,.1,.1,.1", "--set", "population_size=500"]
    assert cli("train", ratings, "--out", tmp_path / "m", *given, *QUICK).code == 0
    model = read_model(tmp_path / "m").settings.model
    assert (model.population_marginal, model.population_size) == ((0.5, 0.2, 0.1, 0.1, 0.1), 500)
    for wrong, expected in ((".5,x", "--population-marginal needs shares"), (".5,.6", "which sum to 1.1")):
        assert expected in cli("train", ratings, "--out", tmp_path / "n", "--population-marginal", wrong).error()
