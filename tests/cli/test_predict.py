"""The verbs besides ``train`` and ``demo``: what they write, and what they refuse."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from commands import QUICK, Cli

from mnar_recsys import MNARRecommender, RatingLog
from mnar_recsys.data.simulate import simulate_ratings
from mnar_recsys.model_folder import read_model


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, so that file names in options stay short."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


COLUMNS = ["user", "item", "mean", "sd", "mean_se", "q05", "q50", "q95", "cold"]
LEVELS = ["p1", "p2", "p3", "p4", "p5"]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_pairs_in_the_order_of_the_file_duplicates_and_strangers_included(
    cli: Cli, model: Path, tmp_path: Path, suffix: str
) -> None:
    pairs = pd.DataFrame({"when": 7, "user": [3, 3, 99, 1, 3], "item": [2, 5, 2, 77, 2]})
    source, target = tmp_path / f"pairs{suffix}", tmp_path / f"out{suffix}"
    pairs.to_csv(source, index=False) if suffix == ".csv" else pairs.to_parquet(source)
    result = cli("predict", model, "--pairs", source, "--out", target, "--levels", "--propensity")
    assert result.code == 0
    assert "5 predictions" in result.out
    assert "2 of them are cold" in result.err
    written = pd.read_csv(target) if suffix == ".csv" else pd.read_parquet(target)
    assert list(written) == [*COLUMNS, *LEVELS, "propensity"]
    assert written[["user", "item"]].equals(pairs[["user", "item"]])
    assert written["cold"].tolist() == [False, False, True, True, False]
    loaded = MNARRecommender.load(model).predict_full(pairs["user"], pairs["item"], levels=True)
    np.testing.assert_allclose(written["mean"], loaded.mean, rtol=1e-5)
    np.testing.assert_allclose(written[LEVELS].sum(axis=1), 1, rtol=1e-5)


def test_named_columns_of_a_tsv(cli: Cli, model: Path, tmp_path: Path) -> None:
    (tmp_path / "pairs.tsv").write_text("who\twhat\n4\t1\n")
    options = ["--columns", "who,what", "--out", tmp_path / "out.csv"]
    assert cli("predict", model, "--pairs", tmp_path / "pairs.tsv", *options).code == 0
    assert (tmp_path / "out.csv").read_text().startswith("user,item,mean,")


def test_every_pair(cli: Cli, model: Path, tmp_path: Path) -> None:
    assert cli("predict", model, "--all", "--out", tmp_path / "out.parquet").code == 0
    log = MNARRecommender.load(model).fitted.log
    written = pd.read_parquet(tmp_path / "out.parquet")
    assert len(written) == log.n_users * log.n_items
    assert not written.duplicated(["user", "item"]).any()


def test_top_n_is_unrated_and_best_first(cli: Cli, model: Path, tmp_path: Path) -> None:
    assert cli("predict", model, "--top-n", 3, "--out", tmp_path / "out.csv").code == 0
    top = pd.read_csv(tmp_path / "out.csv")
    assert top.groupby("user").size().max() == 3
    assert (top.groupby("user")["mean"].diff().dropna() <= 1e-6).all()
    given = MNARRecommender.load(model).fitted.log.to_pandas()
    assert not len(top.merge(given, on=["user", "item"]))


def test_new_users_without_training_again(cli: Cli, model: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.csv"
    new.write_text("user,item,rating\n500,1,5\n500,2,1\n500,3000,4\n")
    result = cli("predict", model, "--ratings", new, "--top-n", 2, "--out", tmp_path / "out.csv")
    assert any("1 ratings of items that the model does not know" in line for line in result.warnings())
    written = pd.read_csv(tmp_path / "out.csv")
    assert written["user"].tolist() == [500, 500]
    assert not written["cold"].any()
    other = RatingLog.from_arrays([500, 500], [1, 2], [5, 1], scale="1,5,1", user_ids=[500])
    expected = MNARRecommender.load(model).condition_on(other).predict(written["user"], written["item"])
    np.testing.assert_allclose(written["mean"], expected, rtol=1e-5)


def test_the_papers_estimand_differs(cli: Cli, model: Path, tmp_path: Path) -> None:
    for estimand in ("conditional", "paper"):
        options = ["--estimand", estimand, "--draws", 64, "--out", tmp_path / f"{estimand}.csv"]
        assert cli("predict", model, "--all", *options).code == 0
    ours, theirs = (pd.read_csv(tmp_path / f"{name}.csv")["mean"] for name in ("conditional", "paper"))
    assert (ours - theirs).abs().mean() > 0.02  # what people keep to themselves is not like what they think of all


def test_warns_of_small_effective_sample_sizes(cli: Cli, model: Path, tmp_path: Path) -> None:
    options = ["--all", "--draws", 1, "--out", tmp_path / "out.csv"]
    (line,) = cli("predict", model, *options).warnings()
    assert "40 of 40 users have an effective sample size below 10 of 8 draws" in line


@pytest.fixture
def held_back(survey: Path, tmp_path: Path) -> Path:
    """Survey ratings; those of rated cells among them."""
    shutil.copy(survey, tmp_path / "labels.csv")
    return tmp_path / "labels.csv"


def test_conformal_intervals_are_added(cli: Cli, model: Path, held_back: Path, tmp_path: Path) -> None:
    options = ["--all", "--conformal", held_back, "--coverage", 0.8]
    result = cli("predict", model, *options, "--out", tmp_path / "out.parquet")
    assert result.code == 0, result.err
    recommender = MNARRecommender.load(model)
    labels = RatingLog.read(held_back, like=recommender.fitted.log)
    intervals = recommender.conformalize(labels, 0.8)
    assert f"at least 80 % of the ratings of unrated pairs drawn like the {intervals.n_labels} labels" in result.err
    assert f"{intervals.n_left_out} more are of rated cells" in result.err
    written = pd.read_parquet(tmp_path / "out.parquet")
    assert list(written) == [*COLUMNS, "lower", "upper"]
    lower, upper = intervals.predict(written["user"], written["item"])
    assert (written["lower"] == lower).mean() > 0.999  # a tail on the threshold may fall to either side
    assert (written["upper"] == upper).mean() > 0.999
    warned = cli("predict", model, "--top-n", 2, *options[1:], "--levels", "--out", tmp_path / "top.csv")
    assert any("picked by their predictions" in line for line in warned.warnings())
    assert list(pd.read_csv(tmp_path / "top.csv")) == [*COLUMNS, "lower", "upper", *LEVELS]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--coverage", 0.9], ["--coverage and --by-user", "--conformal"]),
        (["--conformal", "few.csv"], ["few.csv: a coverage of 0.9 needs at least 9 labels", "found 2"]),
        (["--conformal", "labels.csv", "--coverage", 1.5], ["between 0 and 1; found 1.5"]),
        (["--conformal", "labels.csv", "--coverage", 0.99, "--by-user"], ["at least 99 people"]),
        (["--conformal", "absent.csv"], ["absent.csv", "does not exist"]),
    ],
)
@pytest.mark.usefixtures("here")
def test_bad_calibrations(cli: Cli, model: Path, held_back: Path, options: list[object], expected: list[str]) -> None:
    Path("few.csv").write_text("".join(held_back.read_text().splitlines(keepends=True)[:1]) + "39,1,2\n40,2,2\n")
    line = cli("predict", model, "--all", "--out", "out.csv", *options).error()
    assert all(part in line for part in expected), line
    assert not Path("out.csv").exists()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--all", "--out", "f.xlsx"], ["f.xlsx", "'.xlsx'", ".parquet or .csv"]),
        (["--out", "f.csv"], ["exactly one of --pairs, --all, --top-n", "found none"]),
        (["--all", "--top-n", 3, "--out", "f.csv"], ["exactly one", "--all and --top-n"]),
        (["--top-n", 0, "--out", "f.csv"], ["top-n must be at least 1; found 0"]),
        (["--pairs", "absent.csv", "--out", "f.csv"], ["absent.csv", "does not exist"]),
        (["--pairs", "pairs.csv", "--strict", "--out", "f.csv"], ["pairs.csv, pair 2: user 99", "--strict"]),
        (["--pairs", "named.csv", "--out", "f.csv"], ["named.csv", "column user, item missing", "who, what"]),
        (["--pairs", "names.csv", "--out", "f.csv"], ["names.csv, line 2, column user", "'bob'", "whole number"]),
        (["--pairs", "short.csv", "--out", "f.csv"], ["short.csv, line 3", "1 cell, expected 2"]),
        (["--all", "--out", "pairs.csv/f.csv"], ["cannot be written"]),
        (["--all", "--out", "folder.csv"], ["folder.csv", "cannot be written"]),
        (["--all", "--out", "/dev/full/f.csv"], ["/dev/full/f.csv", "cannot be written"]),
        (
            ["--all", "--ratings", "high.csv", "--out", "f.csv"],
            ["high.csv, line 2", "found rating 9", "1 to 5", "convert"],
        ),
        (["--all", "--ratings", "other.csv", "--out", "f.csv"], ["other.csv", "none of the items is known"]),
        (["--all", "--ratings", "names.csv", "--out", "f.csv"], ["names.csv", "rating"]),
    ],
)
def test_bad_requests(cli: Cli, model: Path, here: Path, options: list[object], expected: list[str]) -> None:
    Path("pairs.csv").write_text("user,item\n1,1\n99,1\n")
    Path("named.csv").write_text("who,what\n1,1\n")
    Path("names.csv").write_text("user,item\nbob,1\n")
    Path("short.csv").write_text("user,item\n1,1\n2\n")
    Path("high.csv").write_text("user,item,rating\n1,1,9\n")
    Path("other.csv").write_text("user,item,rating\n1,777,3\n")
    Path("folder.csv").mkdir()
    before = sorted(here.rglob("*"))
    line = cli("predict", model, *options).error()
    assert all(part in line for part in expected), line
    assert sorted(here.rglob("*")) == before


def test_a_full_disk_leaves_the_old_file(
    cli: Cli, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out.parquet"
    target.write_text("old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mnar_recsys.files.os.fsync", full)
    for command in (["predict", model, "--all"], ["impute", model, "--draws", 2]):
        line = cli(*command, "--out", target).error()
        assert "No space left on device" in line
        assert "old file, if any, is intact" in line
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_device_is_not_replaced_by_a_file() -> None:
    from mnar_recsys.errors import DataError
    from mnar_recsys.files import atomic_path

    with pytest.raises(DataError, match="not a file"), atomic_path("/dev/null"):
        pass
    assert Path("/dev/null").is_char_device()


class Gadget:
    """Something that would leave a trace if it were ever unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("damage", ["removed", "empty", "truncated", "junk", "pickle", "other model"])
@pytest.mark.parametrize("name", ["config.json", "vocab.parquet", "ratings.parquet", "weights.safetensors"])
def test_damaged_model_folders(cli: Cli, model: Path, tmp_path: Path, name: str, damage: str) -> None:
    folder, trace = tmp_path / "model", tmp_path / "trace"
    shutil.copytree(model, folder)
    path = folder / name
    whole = path.read_bytes()
    match damage:
        case "removed":
            path.unlink()
        case "empty":
            path.write_bytes(b"")
        case "truncated":
            path.write_bytes(whole[: len(whole) // 2])
        case "junk":
            path.write_bytes(b"\x00\xff[1, 2]" * 50)
        case "pickle":
            path.write_bytes(pickle.dumps(Gadget(trace)))
        case _:
            other = tmp_path / "other"
            source = tmp_path / "other.csv"
            source.write_text("user,item,rating\n1,1,5\n1,2,3\n2,1,1\n2,3,4\n3,2,2\n4,1,5\n5,1,1\n")
            assert cli("train", source, "--out", other, *QUICK).code == 0
            shutil.copy(other / name, path)
    line = cli("predict", folder, "--all", "--out", tmp_path / "out.csv").error()
    assert str(folder) in line
    assert "train the model again" in line or "not the settings of a model" in line
    assert not trace.exists()
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize(
    "text", ["[]", "{}", '{"format": 99, "settings": {}, "seed": 0, "scale": {}, "fingerprint": ""}', '"model"']
)
def test_foreign_settings(cli: Cli, model: Path, tmp_path: Path, text: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    (folder / "config.json").write_text(text)
    assert "config.json" in cli("summarize", folder).error()


@pytest.mark.parametrize(("key", "value"), [("seed", '"x"'), ("scale", "[1, 5]"), ("settings", '{"model": 3}')])
def test_settings_of_the_wrong_kind(cli: Cli, model: Path, tmp_path: Path, key: str, value: str) -> None:
    import json

    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    config = json.loads((folder / "config.json").read_text()) | {key: json.loads(value)}
    (folder / "config.json").write_text(json.dumps(config))
    assert "config.json" in cli("summarize", folder).error()


def test_a_model_that_is_no_folder(cli: Cli, ratings: Path, tmp_path: Path) -> None:
    for path in (tmp_path / "absent", ratings):
        assert "no such model folder" in cli("summarize", path).error()


def test_imputations_of_every_unrated_cell(cli: Cli, model: Path, tmp_path: Path) -> None:
    assert cli("impute", model, "--draws", 3, "--out", tmp_path / "out.parquet").code == 0
    drawn = pd.read_parquet(tmp_path / "out.parquet")
    log = MNARRecommender.load(model).fitted.log
    assert list(drawn) == ["draw", "user", "item", "rating"]
    assert len(drawn) == 3 * (log.n_users * log.n_items - log.n_ratings)
    assert not drawn.duplicated(["draw", "user", "item"]).any()
    assert not len(drawn.merge(log.to_pandas()[["user", "item"]]))
    assert set(drawn["rating"]) <= {1.0, 2.0, 3.0, 4.0, 5.0}


def test_imputations_of_some_pairs(cli: Cli, model: Path, tmp_path: Path) -> None:
    log = MNARRecommender.load(model).fitted.log
    rated = log.to_pandas().iloc[0]
    unrated = sorted(set(range(1, 13)) - set(log.catalogue.take(log.items[: log.indptr[1]])))[:2]
    rows = [(int(rated["user"]), int(rated["item"])), (1, unrated[1]), (1, unrated[0]), (1, unrated[1])]
    (tmp_path / "pairs.csv").write_text("user,item\n" + "".join(f"{user},{item}\n" for user, item in rows))
    target = tmp_path / "out.csv"
    result = cli("impute", model, "--draws", 2, "--pairs", tmp_path / "pairs.csv", "--out", target)
    assert any("1 pairs are left out" in line for line in result.warnings())
    drawn = pd.read_csv(target)
    assert drawn[["draw", "user", "item"]].to_numpy().tolist() == [[m, 1, item] for m in (1, 2) for item in unrated]
    (tmp_path / "pairs.csv").write_text("user,item\n77,1\n")
    line = cli("impute", model, "--draws", 2, "--pairs", tmp_path / "pairs.csv", "--out", target).error()
    assert "user 77 is not in the training log" in line


def test_summaries(cli: Cli, model: Path, tmp_path: Path) -> None:
    log = MNARRecommender.load(model).fitted.log
    everyone = cli("summarize", model)
    assert everyone.out.splitlines()[-1].startswith("all")
    assert f"{log.values.mean():.3f} [" in everyone.out
    items = cli("summarize", model, "--by", "item", "--draws", 2, "--out", tmp_path / "items.csv")
    assert len(items.out.splitlines()) == 2 + log.n_items
    assert len(pd.read_csv(tmp_path / "items.csv")) == log.n_items
    users = cli("summarize", model, "--by", "user", "--draws", 2)
    assert "... 20 more" in users.out


def test_evaluation(cli: Cli, model: Path, survey: Path, tmp_path: Path) -> None:
    result = cli("evaluate", model, "--test", survey, "--out", tmp_path / "out.csv")
    assert result.code == 0
    assert "MCAR labels used in training: 0" in result.out
    rows = pd.read_csv(tmp_path / "out.csv").set_index(["cells", "metric"])
    recommender = MNARRecommender.load(model)
    test = RatingLog.read(survey, like=recommender.fitted.log)
    users, items = test.users.take(test.rows), test.catalogue.take(test.items)
    error = np.square(recommender.predict(users, items) - test.ratings).mean()
    assert rows.loc[("all", "mse"), "value"] == pytest.approx(error, rel=1e-5)
    seen = pd.merge(test.to_pandas(), recommender.fitted.log.to_pandas(), on=["user", "item"])
    assert rows.loc[("unseen", "mse"), "n"] == test.n_ratings - len(seen)
    assert f"{len(seen)} are also in the training log" in result.out
    assert (rows["mcar_labels"] == 0).all()


def test_labels_are_trained_on_and_never_evaluated_on(cli: Cli, ratings: Path, survey: Path, tmp_path: Path) -> None:
    table = pd.read_csv(survey)
    table.iloc[:10].to_csv(tmp_path / "labels.csv", index=False)
    table.iloc[10:].to_csv(tmp_path / "test.csv", index=False)
    model = tmp_path / "m"
    done = cli("train", ratings, "--out", model, *QUICK, "--scale", "1,5", "--mcar-labels", tmp_path / "labels.csv")
    assert done.code == 0, done.err
    assert f"10 randomly collected ratings (MCAR labels), mean {table['rating'].iloc[:10].mean():.3f}" in done.err
    given = RatingLog.read(ratings, scale="1,5")
    assert f"{given.values.mean():.3f}" in done.out
    n_labels = int(read_model(model).log.surveyed.sum())
    result = cli("evaluate", model, "--test", tmp_path / "test.csv", "--out", tmp_path / "out.csv")
    assert f"MCAR labels used in training: {n_labels}" in result.out
    assert (pd.read_csv(tmp_path / "out.csv")["mcar_labels"] == n_labels).all()
    for verb in (
        ["evaluate", model, "--test"],
        ["predict", model, "--all", "--out", tmp_path / "p.csv", "--conformal"],
    ):
        assert f"trained on as an MCAR label; found {n_labels}" in cli(*verb, survey).error()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, ["does not exist"]),
        ("user,item,rating\n1,1,10\n", ["line 2", "found rating 10", "5 levels from 1 to 5", "convert"]),
        ("user,item,rating\n1,1,2.5\n", ["line 2", "found rating 2.5"]),
        ("user,item,rating\nbob,1,2\n", ["line 2, column user", "'bob'", "whole number"]),
        ("user,item,rating\n1,1,2\n1,1,3\n", ["user 1, item 1"]),
    ],
)
def test_bad_tests(cli: Cli, model: Path, tmp_path: Path, content: str | None, expected: list[str]) -> None:
    path = tmp_path / "test.csv"
    if content is not None:
        path.write_text(content)
    line = cli("evaluate", model, "--test", path).error()
    assert str(path) in line
    assert all(part in line for part in expected), line


def test_inspection(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    careless = "".join(f"1,{item},3\n" for item in range(1, 8))
    path.write_text("user,item,rating,mood\n".replace(",mood", "") + careless + "2,1,1\n2,2,5\n3,1,1\n3,9,5\n")
    text = cli("inspect", path).out
    for part in (
        "ratings  11",
        "density  45.833% of all cells",
        "5 levels from 1 to 5",
        "1 users with 5 or more ratings that are all the same",
        "nobody gave 2, 4",
        "items with fewer than 3 ratings",
        "only 11 ratings",
        "3   63.6%  " + 40 * "#",
        "36.4% (even use of the levels: 40.0%)",
    ):
        assert part in text, part


def test_inspection_of_a_real_scale(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text("user,item,rating\n1,1,0.123\n1,2,0.9\n2,1,0.777\n")
    assert "the real numbers from 0 to 1" in cli("inspect", path, "--scale", "0,1,real").out


def test_signs_of_selection(cli: Cli, tmp_path: Path) -> None:
    """Selection by liking raises the mean of popular items."""
    simulation = simulate_ratings("monotone", n_users=600, n_items=100, ratings_per_user=15)
    simulation.train.to_pandas().to_csv(tmp_path / "r.csv", index=False)
    (line,) = (row for row in cli("inspect", tmp_path / "r.csv").out.splitlines() if row.startswith("popular items"))
    assert "rank correlation +" in line


def test_a_simulation_on_disk(cli: Cli, tmp_path: Path) -> None:
    options = ["--users", 60, "--items", 30, "--seed", 5, "--preset", "monotone"]
    assert cli("simulate", "--out", tmp_path / "s", *options).code == 0
    names = {path.name for path in (tmp_path / "s").iterdir()}
    assert names == {"train.csv", "test.csv", "mcar_labels.csv", "truth.npz"}
    train = RatingLog.read(tmp_path / "s" / "train.csv", scale="1,5")
    expected = simulate_ratings("monotone", n_users=60, n_items=30, seed=5).train
    assert train.to_pandas().equals(expected.to_pandas())


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--users", 3], ["at least 50 users"]),
        (["--preset", "utopia"], ["'utopia'", "r3-like"]),
    ],
)
def test_bad_simulations(cli: Cli, tmp_path: Path, options: list[object], expected: list[str]) -> None:
    line = cli("simulate", "--out", tmp_path / "s", *options).error()
    assert all(part in line for part in expected), line
    assert not (tmp_path / "s").exists()


def test_a_folder_written_before_a_setting_existed(cli: Cli, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A later version adds a field: the folder still belongs together."""
    from mnar_recsys.config import ModelConfig, Settings
    from mnar_recsys.model_folder import read_model

    class LaterModel(ModelConfig):
        novelty: int = 3

    class LaterSettings(Settings):
        model: LaterModel = LaterModel()

    monkeypatch.setattr("mnar_recsys.model_folder.Settings", LaterSettings)
    assert read_model(model).settings.model == LaterModel.model_validate(read_model(model).settings.model.model_dump())
    assert cli("summarize", model).code == 0
