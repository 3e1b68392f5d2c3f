"""The rules of the layout: imports point one way, modules stay small, nothing unsafe, no chatter."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("mnar_recsys", "baselines", "evaluation")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
TORCH = {"torch", "safetensors"}

LEAVES = {"errors", "checks", "rng", "files", "config", "extras", "ray_tasks"}
FLOOR = {f"mnar_recsys.{name}" for name in LEAVES}
# What each part may import from this project; the command line and the package's own front may import everything.
MAY_IMPORT = {
    "mnar_recsys.data": FLOOR,
    "mnar_recsys.model": FLOOR | {"mnar_recsys.data"},
    "mnar_recsys.training": FLOOR | {"mnar_recsys.data", "mnar_recsys.model"},
    "mnar_recsys.prediction": FLOOR | {"mnar_recsys.data", "mnar_recsys.model"},
    "mnar_recsys.propensity": FLOOR | {"mnar_recsys.data"},
    "evaluation": FLOOR - {"mnar_recsys.config"} | {"mnar_recsys.data", "mnar_recsys.propensity"},
    "baselines": FLOOR | {"mnar_recsys.data", "mnar_recsys.propensity"},
    "mnar_recsys.errors": set(),
    "mnar_recsys.rng": set(),
    "mnar_recsys.checks": {"mnar_recsys.errors"},
    "mnar_recsys.files": {"mnar_recsys.errors"},
    "mnar_recsys.config": {"mnar_recsys.errors"},
    "mnar_recsys.candidates": {"mnar_recsys.config", "mnar_recsys.errors"},
    "mnar_recsys.search_space": {"mnar_recsys.config", "mnar_recsys.errors"},
    "mnar_recsys.extras": {"mnar_recsys.errors"},
    "mnar_recsys.ray_tasks": {"mnar_recsys.errors", "mnar_recsys.extras"},
}
FRONT = {
    "mnar_recsys.model_folder": FLOOR | {"mnar_recsys.data", "mnar_recsys.model"},
    "mnar_recsys.model_card": FLOOR | {"mnar_recsys.data", "mnar_recsys.model", "mnar_recsys.model_folder"},
    "mnar_recsys.sensitivity": FLOOR
    | {f"mnar_recsys.{name}" for name in ("data", "model", "training", "prediction", "model_folder")},
    "mnar_recsys.mask_checks": FLOOR | {f"mnar_recsys.{name}" for name in ("data", "model", "prediction")},
    "mnar_recsys.model_selection": FLOOR
    | {f"mnar_recsys.{name}" for name in ("data", "model", "training", "prediction")}
    | {f"mnar_recsys.{name}" for name in ("candidates", "model_card", "recommender")},
    "mnar_recsys.tables": FLOOR | {f"mnar_recsys.{name}" for name in ("data", "model", "prediction")},
    "evaluation.paper": {"mnar_recsys.errors", "mnar_recsys.rng", "mnar_recsys.tables", "baselines", "evaluation"},
    "mnar_recsys.tuning": FLOOR
    | {f"mnar_recsys.{name}" for name in ("data", "model", "training", "search_space")}
    | {f"mnar_recsys.{name}" for name in ("model_folder", "model_selection", "recommender")},
    "mnar_recsys.resuming": FLOOR | {f"mnar_recsys.{name}" for name in ("data", "training", "model_folder")},
    "mnar_recsys.recommender": FLOOR
    | {f"mnar_recsys.{name}" for name in ("data", "model", "training", "prediction")}
    | {f"mnar_recsys.{name}" for name in ("model_folder", "model_card", "resuming")},
    # The one part that only users import: it stands on everything, and nothing stands on it.
    "mnar_recsys.integrations": FLOOR
    | {f"mnar_recsys.{name}" for name in ("data", "model", "training", "prediction", "model_folder", "recommender")},
}


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def part_of(module: str) -> str:
    """The part of the layout that a module belongs to: mnar_recsys.data.log -> mnar_recsys.data."""
    head, *rest = module.split(".")
    if rest[:1] == ["paper"]:
        return "evaluation.paper"
    return f"{head}.{rest[0]}" if head == "mnar_recsys" and rest else head


def imports_of(path: Path) -> Iterator[str]:
    """Every module imported anywhere in a file, functions and type-checking blocks included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def ours(imported: str) -> bool:
    return imported.split(".", maxsplit=1)[0] in PACKAGES


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_one_way(path: Path) -> None:
    part = part_of(name_of(path))
    if part in ("mnar_recsys", "mnar_recsys.cli", "mnar_recsys.__main__"):
        return
    rules = MAY_IMPORT | FRONT
    assert part in rules, f"{part} has no import rule: add it here and to the layout"
    used = {part_of(imported) for imported in imports_of(path) if ours(imported)} - {part}
    assert used <= rules[part], f"{name_of(path)} imports {sorted(used - rules[part])}"


def test_only_the_model_side_imports_torch() -> None:
    allowed = {"mnar_recsys.model", "mnar_recsys.training", "mnar_recsys.prediction", *FRONT}
    for path in MODULES:
        part = part_of(name_of(path))
        if part.startswith("baselines") or part in allowed or part == "mnar_recsys.cli":
            continue
        assert not {imported.split(".")[0] for imported in imports_of(path)} & TORCH, path


def test_recbole_is_kept_to_its_own_process_and_to_what_only_users_import() -> None:
    found = {name_of(path) for path in MODULES if "recbole" in {name.split(".")[0] for name in imports_of(path)}}
    assert found == {"baselines.recbole_worker", "mnar_recsys.integrations.recbole_model"}
    worker = next(path for path in MODULES if name_of(path) == "baselines.recbole_worker")
    assert not [name for name in imports_of(worker) if ours(name)]
    at_top = {name for node in ast.parse(worker.read_text(encoding="utf-8")).body if isinstance(node, ast.ImportFrom)
              for name in [node.module or ""]}  # fmt: skip
    assert not [name for name in at_top if name.startswith("recbole")]


@pytest.mark.parametrize(
    "module", ["mnar_recsys", "mnar_recsys.data", "mnar_recsys.data.simulate", "mnar_recsys.propensity", "evaluation"]
)
def test_reading_data_does_not_load_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT, timeout=60).returncode == 0


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_modules_and_functions_stay_small(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            docstring = ast.get_docstring(node, clean=False) or ""
            length = node.end_lineno - node.lineno + 1 - len(docstring.splitlines())
            assert length <= 60, f"{path}:{node.lineno}: {node.name} has {length} lines"


def called(node: ast.AST) -> str:
    return ast.unparse(node.func) if isinstance(node, ast.Call) else ""


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_nothing_unsafe_and_no_chatter(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    calls = {called(node) for node in ast.walk(tree)}
    assert not calls & {"eval", "exec", "torch.load", "torch.save", "np.random.seed", "torch.set_default_dtype"}
    assert not {imported.split(".")[0] for imported in imports_of(path)} & {"pickle", "dill", "joblib", "shelve"}
    if not name_of(path).startswith("mnar_recsys.cli"):
        assert "print" not in calls


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_global_random_state(path: Path) -> None:
    calls = {called(node) for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))}
    drawn = {call for call in calls if call.startswith("np.random.")} - {
        "np.random.default_rng",
        "np.random.SeedSequence",
    }
    assert not drawn
    # The one seeding of torch is inside a fork that puts the generators back.
    if "torch.manual_seed" in calls:
        assert "torch.random.fork_rng" in calls
