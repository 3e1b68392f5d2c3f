"""Pages that the code writes itself: one a baseline, and one for each part of the programming interface."""

import inspect
import re
from pathlib import Path

from baselines.registry import BASELINES
from baselines.weighting import AUTO

ROOT = Path(__file__).parents[1]
PARTS = {
    "recommender": ("Front", ("mnar_recsys/*.py",)),
    "config": ("Settings", ("mnar_recsys/config/*.py",)),
    "data": ("Data", ("mnar_recsys/data/*.py",)),
    "model": ("Model", ("mnar_recsys/model/**/*.py",)),
    "training": ("Training", ("mnar_recsys/training/*.py",)),
    "prediction": ("Prediction", ("mnar_recsys/prediction/*.py",)),
    "tables": ("Tables", ("mnar_recsys/tables/*.py",)),
    "tuning": ("Tuning", ("mnar_recsys/tuning/*.py",)),
    "sensitivity": ("Sensitivity", ("mnar_recsys/sensitivity/*.py",)),
    "propensity": ("Propensities", ("mnar_recsys/propensity/*.py",)),
    "baselines": ("What baselines share", ("baselines/*.py",)),
    "evaluation": ("Evaluation", ("evaluation/*.py",)),
    "paper": ("The paper's experiments on tables", ("evaluation/paper/*.py",)),
}

_MATH = re.compile(r":math:`([^`]*)`")


def write_pages(folder: Path) -> None:
    """Write ``baselines/NAME.rst``, a table of these, and ``api/PART.rst``; remove pages of what is no more.

    A file whose text is as before is left alone: a second build then reads what has changed only.
    """
    pages = {}
    for name, method in BASELINES.items():
        directive = f".. autoclass:: {method.__module__}.{method.__qualname__}\n   :no-members:"
        pages[folder / "baselines" / f"{name}.rst"] = _titled(f"``{name}``", directive)
    pages[folder / "baselines.txt"] = _table_of_baselines()
    for name, (title, patterns) in PARTS.items():
        paths = sorted(path for pattern in patterns for path in ROOT.glob(pattern) if path.stem != "__main__")
        pages[folder / "api" / f"{name}.rst"] = _titled(title, "\n\n".join(_module(path) for path in paths))
    for path in {path for path in folder.rglob("*.*") if path.is_file()} - set(pages):
        path.unlink()
    for path, text in pages.items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")


def _table_of_baselines() -> str:
    """Return a table of the methods with the first sentence of each, in Markdown, to be included."""
    rows = []
    for name, method in BASELINES.items():
        first = (inspect.getdoc(method) or "").split("\n\n", maxsplit=1)[0].replace("\n", " ").replace("``", "`")
        made = method()
        if_given = not method.uses_labels and getattr(made, "propensity", None) == AUTO
        labels = "" if not made.needs_labels else "if given" if if_given else "needed"
        rows.append(f"| [`{name}`](../generated/baselines/{name}.rst) | {_MATH.sub(_in_dollars, first)} | {labels} |")
    return "\n".join(["| name | what it is | MCAR labels |", "|---|---|---|", *rows, ""])


def _in_dollars(match: re.Match[str]) -> str:
    return f"${match[1]}$"


def _module(path: Path) -> str:
    """Return the section of a module; a baseline's class has a page of its own."""
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    elsewhere = [method.__qualname__ for method in BASELINES.values() if method.__module__ == name]
    options = [":ignore-module-all:"]
    if path.stem == "__init__":
        options = [":no-members:"]  # what it re-exports is documented where it is
    elif elsewhere:
        options.append(f":exclude-members: {', '.join(elsewhere)}")
    return _titled(f"``{name}``", "\n   ".join([f".. automodule:: {name}", *options]), "-")


def _titled(title: str, body: str, line: str = "=") -> str:
    return f"{title}\n{line * len(title)}\n\n{body}\n"
