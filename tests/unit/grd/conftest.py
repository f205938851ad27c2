from collections.abc import Callable
from pathlib import Path
from zipfile import ZipFile

import pytest

from icemap_xr.testing.radar import RadarScene, wavy_backscatter, wavy_terrain, write_dem

EW = "S1A_EW_GRDM_1SDH_20221130T014342_20221130T014446_046117_058549_BB15"
IW = "S1A_IW_GRDH_1SDV_20180716T004042_20180716T004107_022812_02792A_FD5B"
ZIP = "S1A_IW_GRDH_1SDV_20210119T031653_20210119T031718_036201_043ED0_8255"


@pytest.fixture(scope="session")
def sentinel1(data: Path) -> Path:
    """Real annotation and one real scene."""
    return data / "sentinel1_grd"


@pytest.fixture(scope="session")
def polar(sentinel1: Path) -> Path:
    """A polar EW product without pixels: its annotation folder."""
    return sentinel1 / EW / "annotation"


@pytest.fixture(scope="session")
def real_iw(sentinel1: Path) -> Path:
    """A real IW scene, 1/20 of its size."""
    return sentinel1 / IW / "measurement" / "iw-vv.tiff"


@pytest.fixture(scope="session")
def iw_annotation(sentinel1: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Annotation folder of a complete IW product without pixels."""
    folder = tmp_path_factory.mktemp("iw")
    with ZipFile(sentinel1 / f"{ZIP}.zip") as archive:
        for name in archive.namelist():
            if "/annotation/" in name and name.endswith(".xml"):
                archive.extract(name, folder)
    return folder / f"{ZIP}.SAFE" / "annotation"


@pytest.fixture(scope="session")
def hilly() -> RadarScene:
    """A scene of hills 150 to 650 m high, without speckle."""
    return RadarScene(shape=(420, 520), terrain=wavy_terrain, backscatter=wavy_backscatter)


@pytest.fixture(scope="session")
def hilly_product(hilly: RadarScene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its raster, with annotation beside it."""
    return hilly.write(tmp_path_factory.mktemp("hilly"))


@pytest.fixture(scope="session")
def hilly_dem(hilly: RadarScene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its terrain, 20 m, above the ellipsoid."""
    return write_dem(tmp_path_factory.mktemp("dem") / "dem.tif", hilly, margin=6000.0)


@pytest.fixture
def edited(tmp_path: Path, hilly: RadarScene) -> Callable[..., Path]:
    """Write a small product with something in its annotation replaced."""

    def write(kind: str, old: str, new: str, *, scene: RadarScene | None = None) -> Path:
        path = (scene or RadarScene(shape=(60, 80))).write(tmp_path)
        folder = path.parent.parent / "annotation"
        file = (
            folder / f"{path.stem}.xml" if kind == "annotation" else folder / "calibration" / f"{kind}-{path.stem}.xml"
        )
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))
        return path

    return write
