"""Run configurations: faults in one line that name the key, paths beside the file, and what identifies a run."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml

from icemap_xr.config import parse_config, read_config
from icemap_xr.errors import ConfigError

GOOD: dict[str, Any] = {
    "name": "test",
    "region": [15.0, 78.0, 16.0, 78.5],
    "years": [2020, 2021],
    "search": {"provider": "catalog.json"},
    "grid": {"crs": "EPSG:32633"},
    "model": {"name": "model"},
}


def changed(*keys: str, value: Any) -> dict[str, Any]:
    content = copy.deepcopy(GOOD)
    inner = content
    for key in keys[:-1]:
        inner = inner.setdefault(key, {})
    inner[keys[-1]] = value
    return content


def test_a_good_one() -> None:
    config = parse_config(GOOD, "run.yaml")
    assert config.region == (15.0, 78.0, 16.0, 78.5)
    assert config.years == (2020, 2021)
    assert config.cube.steps == 15
    assert parse_config(config.to_dict(), "again") == config


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (changed("regoin", value=1), "unknown key 'regoin'.*'region'.*known are name"),
        (changed("search", "provder", value="x"), r"unknown key 'search\.provder'.*'provider'.*known are provider"),
        (changed("predict", "overlaps", value=0.5), r"'predict\.overlaps'.*'overlap'"),
        (changed("cluster", "worker", value=2), r"'cluster\.worker'.*'workers'"),
        ({k: v for k, v in GOOD.items() if k != "years"} | {"yeers": [2020]}, "unknown key 'yeers'.*'years'"),
        ({k: v for k, v in GOOD.items() if k != "model"}, "key 'model' is missing"),
        (changed("search", value={}), r"key 'search\.provider' is missing"),
        (changed("years", value="often"), "years.*got 'often'"),
        (changed("years", value=2020), "years.*got 2020"),
        (changed("years", value=[2020, "x"]), r"years\.1.*got 'x'"),
        (changed("grid", "resolution", value="fine"), r"grid\.resolution.*got 'fine'"),
        (changed("predict", "gaps", value="some"), r"predict\.gaps.*'error'.*got 'some'"),
        (changed("cube", "loader", value="gdal"), r"cube\.loader.*'odc'.*got 'gdal'"),
        (changed("cluster", "kind", value="pbs"), "'pbs' is not allowed.*'local'"),
        (changed("search", value="catalog.json"), "search.*got 'catalog.json'"),
        (changed("region", value=[1, 2, 3]), "region"),
        (changed("predict", value=None), "predict.*got None"),
        (GOOD | {1: 2}, "1"),
        ([], "no mapping.*name, region, years, search, grid, model"),
        (None, "no mapping"),
        ("text", "no mapping"),
    ],
)
def test_faults_are_named_in_one_line(content: Any, match: str) -> None:
    with pytest.raises(ConfigError, match=match) as caught:
        parse_config(content, "run.yaml")
    assert str(caught.value).startswith("run.yaml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["name: [", "a: b: c", "\t- x", "name: 'open"])
def test_a_file_that_is_no_yaml(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"run\.yaml is no valid YAML") as caught:
        read_config(tmp_path / "run.yaml")
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00\x9f")
    for name in ("none.yaml", ".", "binary"):
        with pytest.raises(ConfigError):
            read_config(tmp_path / name)


def test_paths_are_those_beside_the_file_and_names_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "configs"
    folder.mkdir()
    for name in ("catalog.json", "region.gpkg", "weights.h5", "knots.json", "tiles.shp", "errors.json"):
        (folder / name).touch()
    content = changed("model", "weights", value="weights.h5") | {
        "region": "region.gpkg",
        "area": {
            "calibrator": "knots.json",
            "tiles": "tiles.shp",
            "interval": "mapping",
            "block_errors": "errors.json",
        },
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.chdir(tmp_path)
    config = read_config("configs/run.yaml")
    assert config.search.provider == str(folder / "catalog.json")
    assert config.region == str(folder / "region.gpkg")
    assert config.model.weights == str(folder / "weights.h5")
    assert config.area.calibrator == str(folder / "knots.json")
    assert (config.area.tiles, config.area.block_errors) == (str(folder / "tiles.shp"), str(folder / "errors.json"))
    assert config.model.name == "model"
    for provider in ("https://host/catalog.json", "local", str(folder / "other.json")):
        (folder / "run.yaml").write_text(yaml.safe_dump(changed("search", "provider", value=provider)))
        assert read_config("configs/run.yaml").search.provider == provider


def test_the_digest_is_of_what_changes_the_result() -> None:
    digest = parse_config(GOOD, "x").digest
    for same in (changed("cluster", "workers", value=7), changed("predict", "overlap", value=0.5)):
        assert parse_config(same, "y").digest == digest
    others = [
        changed("years", value=[2020]),
        changed("predict", "overlap", value=0.25),
        changed("grid", "resolution", value=20),
        changed("model", "name", value="other"),
    ]
    assert len({digest, *(parse_config(one, "x").digest for one in others)}) == 5


def test_sections_are_the_parameters_of_their_stages() -> None:
    import inspect

    from icemap_xr.cube import build_cube
    from icemap_xr.outlines import outlines
    from icemap_xr.predict import predict

    config = parse_config(GOOD, "x")
    for section, stage in ((config.cube, build_cube), (config.predict, predict), (config.outlines, outlines)):
        offered = inspect.signature(stage).parameters
        for one in dataclasses.fields(section):
            assert offered[one.name].default == getattr(section, one.name), one.name


def test_the_shipped_configurations_are_good() -> None:
    folder = Path(__file__).parents[2] / "pipelines"
    assert read_config(folder / "opera_rtc.yaml").model.name == "ICEmapper_tweightedpool_rtc"
