"""Fixtures for all tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

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
