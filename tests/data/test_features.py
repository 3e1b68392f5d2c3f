import subprocess
import sys

import pytest

from mnar_recsys.data import Vocabulary, read_features
from mnar_recsys.errors import DataError

ITEMS = Vocabulary.from_ids([1, 2, 3], "item")


def put(folder, content):
    path = folder / "items.csv"
    path.write_text(content)
    return path


def test_numbers_and_categories_are_aligned_with_the_vocabulary(tmp_path):
    table = read_features(put(tmp_path, "price,item,colour\n2.5,3,red\n1,1,blue\n-4,2,red\n9,77,red\n"), ITEMS, "item")
    assert table.names == ("price", "colour=blue", "colour=red")
    assert table.values.tolist() == [[1, 1, 0], [-4, 0, 1], [2.5, 0, 1]]


def test_an_id_without_features_is_marked(tmp_path):
    table = read_features(put(tmp_path, "item;price\n1;5\n3;7\n"), ITEMS, "item")
    assert table.names == ("price", "has_features")
    assert table.values.tolist() == [[5, 1], [0, 0], [7, 1]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("item,price\n1,5\n2,5\n1,6\n", "line 4: item 1 occurs again"),
        ("item,price\n1,5\n2,\n", "line 3, column price: found an empty cell"),
        ("item,colour\n1,red\n2,\n", "line 2, column colour: found 'red', expected a finite number"),
        ("item,price\n1,5\n2,inf\n", "line 3, column price: found 'inf'"),
        ("item,price\n1,5\nx,6\n", "line 3, column item: found the id 'x', expected a whole number"),
        ("id,price\n1,5\n", "line 1: expected the column 'item'"),
        ("item,price,price\n1,5,5\n", "must be unique"),
        ("item,name\n" + "".join(f"{row},name{row}x\n" for row in range(201)), "201 different words"),
        ("item,has_features\n1,5\n", "is taken by a column"),
    ],
)
def test_feature_files_that_are_refused(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        read_features(put(tmp_path, content), ITEMS, "item")


def test_importing_the_data_package_never_loads_torch():
    check = "import sys, mnar_recsys.data; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
