"""The import rules of the package: layers, no cycles, no TensorFlow at import, true `__all__`."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import icemap_xr

PACKAGE = Path(icemap_xr.__file__).parent
STAGES = {
    "archive",
    "area",
    "bootstrap",
    "calibrate",
    "catalog",
    "cube",
    "divides",
    "geotiffs",
    "outlines",
    "plot",
    "predict",
    "temporal",
    "trend",
}
BOTTOM = {"errors", "types", "schema", "urls"}
TOP = {"apply", "cli", "demo", "run", "run_maps", "run_plan", "region_plan", "tilerun"}


def modules() -> dict[str, Path]:
    """All modules of the package by dotted name without the package's own."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = path
    return found


def imports(path: Path, *, top_level_only: bool = False) -> Iterator[str]:
    """Dotted names that a module imports; names under TYPE_CHECKING and, if asked, inside functions do not count."""
    tree = ast.parse(path.read_text())
    body = list(tree.body) if top_level_only else list(ast.walk(tree))
    skipped = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for child in ast.walk(node)
    }
    for node in body:
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports(path: Path, **options: bool) -> set[str]:
    """Modules of the package that a module imports."""
    known = set(modules())
    names = (name.removeprefix("icemap_xr.") for name in imports(path, **options) if name.startswith("icemap_xr."))
    return {name for name in names if name in known}


def test_stages_never_import_each_other() -> None:
    for stage in STAGES:
        assert not own_imports(modules()[stage]) & (STAGES - {stage}), stage


def test_bottom_modules_import_only_each_other() -> None:
    for name in BOTTOM:
        assert own_imports(modules()[name]) <= BOTTOM, name


def test_grid_stands_on_the_bottom_alone() -> None:
    assert own_imports(modules()["grid"]) <= BOTTOM


def test_kernels_know_numpy_and_no_frameworks() -> None:
    banned = {"dask", "xarray", "tensorflow", "keras", "distributed", "zarr"}
    for name, path in modules().items():
        if name.startswith("kernels"):
            assert not {one.split(".")[0] for one in imports(path)} & banned, name
            assert {one.split(".")[0] for one in own_imports(path)} <= {"kernels", *BOTTOM}, name


def test_only_models_and_training_know_tensorflow() -> None:
    for name, path in modules().items():
        roots = {one.split(".")[0] for one in imports(path)}
        if not name.startswith(("models", "training")):
            assert not roots & {"tensorflow", "keras"}, name


def test_predict_knows_models_only_through_the_protocol() -> None:
    for name in ("predict", "blockjob"):
        assert not {one for one in own_imports(modules()[name]) if one.startswith("models")}, name


def test_nothing_below_imports_the_top() -> None:
    for name, path in modules().items():
        if name.split(".")[0] not in TOP:
            assert not own_imports(path) & TOP, name


def test_there_are_no_import_cycles() -> None:
    graph = {name: own_imports(path, top_level_only=True) - {name} for name, path in modules().items() if name}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join([*trail, name])
        if name not in done:
            for other in graph.get(name, ()):
                # a package's __init__ re-exports its modules: that is no cycle of its own
                if not name.startswith(f"{other}."):
                    visit(other, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_importing_the_package_imports_no_tensorflow() -> None:
    code = "import sys, icemap_xr; print({'tensorflow', 'keras', 'matplotlib', 'distributed'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"


def test_all_names_exist_and_are_the_documented_ones() -> None:
    assert sorted(icemap_xr.__all__) == list(icemap_xr.__all__)
    for name in icemap_xr.__all__:
        assert getattr(icemap_xr, name) is not None
    assert {"search", "build_cube", "open_cube", "load_model", "open_archive", "trend", "simulate", "cluster"} <= set(
        icemap_xr.__all__
    )


def test_accessor_has_the_documented_methods_and_little_code() -> None:
    from icemap_xr.accessor import IcemapAccessor

    methods = {name for name in vars(IcemapAccessor) if not name.startswith("_")}
    assert methods == {
        "archive",
        "area",
        "bootstrap_area",
        "calibrate",
        "divide",
        "filter_years",
        "glacier_area",
        "outlines",
        "plot",
        "predict",
        "to_zarr",
        "variogram",
        "yearly",
    }
    statements = sum(isinstance(node, ast.stmt) for node in ast.walk(ast.parse((PACKAGE / "accessor.py").read_text())))
    assert statements < 100


@pytest.mark.parametrize("banned", ["import pickle", "yaml.load(", "allow_pickle=True", "import dill", "joblib"])
def test_no_unsafe_loading(banned: str) -> None:
    for name, path in modules().items():
        assert banned not in path.read_text(), name
