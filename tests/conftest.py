"""Fixtures for all tests."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings
from rich.console import Console

from icemap_xr import cli
from icemap_xr.cli import console
from icemap_xr.testing.commands import Result

# machines differ in speed, results must not
settings.register_profile("icemap", deadline=None)
settings.load_profile("icemap")

SHARED = Path(__file__).resolve().parents[2] / "shared"


def _folder(name: str) -> Path:
    path = SHARED / name
    if not path.is_dir():
        pytest.skip(f"reference files are not at {path}")
    return path


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of reference weights with inputs and outputs of the published network code."""
    return _folder("golden")


@pytest.fixture(scope="session")
def data() -> Path:
    """Folder of real sample data."""
    return _folder("data")


@pytest.fixture(autouse=True)
def no_logging_set_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave logging to pytest: a command run in this process would log to a stream that is closed after its test."""
    monkeypatch.setattr(console, "start_logging", lambda verbose: None)


@pytest.fixture
def icemap(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Run a command line in this process; no table is folded."""

    def run(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["icemap", *map(str, arguments)])
        monkeypatch.setattr(console, "ERR", Console(stderr=True))
        monkeypatch.setattr(console, "OUT", Console(width=400))
        capfd.readouterr()
        code = 0
        try:
            cli.main()
        except SystemExit as error:
            code = int(error.code or 0)
        out, err = capfd.readouterr()
        return Result(code, out, err)

    return run
