"""``evaluate``: metrics on a test set of ratings that were collected at random."""

from pathlib import Path
from typing import Annotated

import typer

from mnar_recsys.cli.options import Columns, Duplicates, Layout, ModelFolder
from mnar_recsys.cli.terminal import note, say


def evaluate(
    model: ModelFolder,
    test: Annotated[Path, typer.Option(help="Test ratings, collected at random (MCAR), on the model's scale.")],
    out: Annotated[Path | None, typer.Option(help="Also write the rows to this .csv or .parquet file.")] = None,
    duplicates: Duplicates = "error",
    columns: Columns = None,
    layout: Layout = "auto",
) -> None:
    """Score a model on randomly collected ratings.

    With 95 % intervals from resampling users, on the cells that are not in the training log and on all.
    """
    import pyarrow as pa

    from mnar_recsys.cli.reading import load_model, read_log
    from mnar_recsys.cli.scoring import refuse_training_labels, results_text, score_model
    from mnar_recsys.prediction.export import check_target, write_tables

    if out is not None:
        check_target(out)
    recommender = load_model(model)
    log = read_log(test, columns=columns, like=recommender.fitted.log, duplicates=duplicates, layout=layout)
    n_labels = refuse_training_labels(recommender.fitted.log, log, test)
    scored = score_model(recommender, log)
    say(results_text(scored.results))
    say(f"\nMCAR labels used in training: {n_labels:,}. {scored.remarks}")
    if out is not None:
        results = scored.results.assign(mcar_labels=n_labels)
        write_tables(out, [pa.Table.from_pandas(results, preserve_index=False)])
        note(f"{out}: {len(results):,} rows")
