"""What is installed: lock file, environment.yml and pyproject.toml agree; the wheel carries its data."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

from icemap_xr.resources import catalog_path

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def requirement_name(requirement: str) -> str:
    """Normalised package name of a requirement."""
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match, requirement
    return re.sub(r"[-_.]+", "-", match.group()).lower()


def test_environment_lists_the_same_requirements() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    pip = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert sorted(line for line in pip if not line.startswith("-")) == sorted(PROJECT["dependencies"])
    assert f"python{PROJECT['requires-python']}" in environment["dependencies"]


def test_lock_holds_every_requirement_with_hashes_and_no_addresses() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    locked = {requirement_name(line) for line in lock.splitlines() if re.match(r"[a-z0-9]", line)}
    wanted = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]
    assert {requirement_name(one) for one in wanted} <= locked
    assert "://" not in lock
    assert lock.count("--hash=sha256:") > len(locked)


def test_tensorflow_is_the_dependency_not_its_cpu_variant() -> None:
    names = {requirement_name(one) for one in PROJECT["dependencies"]}
    assert "tensorflow" in names
    assert "tensorflow-cpu" not in names
    clusters = {"gateway", "kubernetes", "slurm", "monitoring"}
    assert set(PROJECT["optional-dependencies"]) == {"gpu", "map", "notebooks", "dev"} | clusters


def test_catalogs_resolve_in_this_install() -> None:
    assert catalog_path("models.yaml").is_file()
    assert (catalog_path("providers") / "local.yaml").is_file()


def test_wheel_carries_the_catalogs(tmp_path: Path) -> None:
    build = pytest.importorskip("hatchling.build", reason="hatchling is not installed")
    code = f"from hatchling.build import build_wheel; print(build_wheel({str(tmp_path)!r}))"
    assert build
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)
    wheel = next(tmp_path.glob("*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "site")
    for path in (ROOT / "catalogs").rglob("*"):
        if path.is_file():
            assert f"icemap_xr/_catalogs/{path.relative_to(ROOT / 'catalogs').as_posix()}" in names
    probe = "from icemap_xr.resources import catalog_path; print(catalog_path('models.yaml'))"
    env = {"PYTHONPATH": str(tmp_path / "site"), "PATH": "/usr/bin"}
    out = subprocess.run(
        [sys.executable, "-c", probe], cwd=tmp_path, env=env, capture_output=True, text=True, check=True
    )
    assert out.stdout.strip().startswith(str(tmp_path / "site"))


def test_readme_and_ci_use_the_same_commands() -> None:
    assert "make test" in (ROOT / ".ci" / "run").read_text()
    readme = (ROOT / "README.md").read_text()
    assert "make demo" in readme
    assert "make test" in readme
