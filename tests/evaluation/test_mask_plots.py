"""The figure of a mask check: complete, in words too, and readable without colours."""

from xml.etree import ElementTree

import numpy as np
import pytest

from evaluation.drawing import Figure
from evaluation.mask_plots import mask_check_chart
from mnar_recsys.errors import DataError

GROUPS = ("1 (least)", "2", "3 (most)")
LABELS = {"x_label": "tenth of the users", "y_label": "ratings of a user"}


def chart(*actual: float) -> Figure:
    predicted = np.array([2.0, 3.0, 4.0])
    return mask_check_chart(GROUPS, actual, predicted, 0.9 * predicted, 1.1 * predicted, **LABELS)


def texts_of(figure: Figure) -> list[str]:
    root = ElementTree.fromstring(figure.svg)  # noqa: S314 - our own text
    return ["".join(node.itertext()).strip() for node in root.iter("{http://www.w3.org/2000/svg}text")]


def test_marks_words_and_colours() -> None:
    figure = chart(1.9, 3.0, 9.0)
    texts = texts_of(figure)
    assert {"actual", "actual, outside", "95 % interval", "tenth of the users", "ratings of a user,"} <= set(texts)
    assert {"(least)", "(most)"} <= set(texts)
    assert "1 (least) 1.9 and 2, 2 3 and 3, 3 (most) 9 and 4" in figure.alt
    assert "#0102" not in figure.svg
    assert "math" not in figure.svg
    assert "actual, outside" not in texts_of(chart(1.9, 3.0, 4.0))


def test_a_group_of_which_nothing_is_predicted_has_no_multiple() -> None:
    figure = mask_check_chart(GROUPS, [1, 0, 2], [1, 0, 2], [1, 0, 2], [1, 0, 3], **LABELS)
    assert "2 0 and 0" in figure.alt
    assert "nan" not in figure.svg


def test_what_cannot_be_drawn_is_refused() -> None:
    one = np.ones(3)
    with pytest.raises(DataError, match="numbers of 0 or more"):
        mask_check_chart(GROUPS, -one, one, one, one, **LABELS)
    with pytest.raises(DataError, match="found 0 groups"):
        mask_check_chart((), [], [], [], [], **LABELS)
    with pytest.raises(DataError, match="equally long"):
        mask_check_chart(GROUPS, one, one[:2], one, one, **LABELS)
