"""Provider profiles are checked when they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from icemap_xr.errors import ConfigError, IcemapError, InputError
from icemap_xr.providers import known_providers, load_provider, parse_provider
from icemap_xr.schema import FEATURES

GOOD: dict[str, Any] = {
    "name": "mine",
    "title": "Mine",
    "url": None,
    "sources": [{"feature": "rtc", "collection": "c", "assets": {"VV": "vv"}}],
}


def test_shipped_profiles_hold_every_feature() -> None:
    assert "local" in known_providers()
    assert {source.feature for source in load_provider("local").sources} == set(FEATURES)


def test_a_profile_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(GOOD))
    found = load_provider(str(path))
    assert found.sources[0].values == "power"
    assert parse_provider(found.to_dict(), "again") == found


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (GOOD | {"titel": "x"}, "titel"),
        ({k: v for k, v in GOOD.items() if k != "sources"}, "sources"),
        (GOOD | {"sources": [{"feature": "rtc"}]}, r"sources\.0\.collection"),
        (GOOD | {"sources": [{"feature": "rct", "collection": "c"}]}, "'rct'.*'rtc'"),
        (GOOD | {"sources": [{"feature": "rtc", "collection": "c", "values": "db"}]}, r"values.*'dB'"),
        (None, "mine.yaml"),
    ],
)
def test_faults_are_named(content: Any, match: str) -> None:
    with pytest.raises(ConfigError, match=match) as caught:
        parse_provider(content, "mine.yaml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "match"), [("lokal", "'lokal'.*did you mean 'local'"), ("none.yaml", "none.yaml")])
def test_unknown_names(name: str, match: str) -> None:
    with pytest.raises(InputError, match=match):
        load_provider(name)


def test_a_profile_that_is_no_yaml(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: [")
    with pytest.raises(IcemapError, match=r"mine\.yaml") as caught:
        load_provider(str(path))
    assert "\n" not in str(caught.value)
