"""How the documentation is built: `make docs`. Nothing is fetched, neither in building nor in reading."""

import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from generate import write_pages  # noqa: E402
from sphinx.ext.napoleon import Config, NumpyDocstring  # noqa: E402

project = "mnar_recsys"
extensions = ["myst_parser", "sphinx.ext.autodoc", "mathml"]
html_theme = "furo"
html_title = project
html_show_copyright = False
html_show_sphinx = False
html_copy_source = False
exclude_patterns = ["_build"]

myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3
default_role = "literal"  # names in single backticks

toc_object_entries = False  # a sidebar of two thousand names helps nobody
autodoc_default_options = {"members": True, "member-order": "bysource", "show-inheritance": True}
autodoc_typehints = "none"  # shapes and units, which the text gives, say more
suppress_warnings = ["ref.python"]  # that an attribute has the name of others is no fault
python_maximum_signature_line_length = 100

SECTIONS = Config(napoleon_use_rtype=False, napoleon_use_ivar=True)
write_pages(HERE / "generated")


def read_sections(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Turn numpy sections into fields. As an extension napoleon would take "nats: the bound" for a type and a name."""
    kind = "method" if what in ("attribute", "data", "property") else what
    lines[:] = NumpyDocstring(lines, SECTIONS, app, kind, name, obj, options).lines()


def setup(app: Any) -> None:
    """Connect the one hook."""
    app.connect("autodoc-process-docstring", read_sections)
