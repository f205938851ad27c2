"""Whether the files beside an archive say what the archive holds: they are made from it, so they can be made again."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import geopandas as gpd

from icemap_xr.archive import item_of, open_archive, tables_of
from icemap_xr.sidecars import item_content, sidecar_paths, write_geoparquet

#: members of an item that say which version of STAC wrote it and not what is in the archive
_OF_WRITER = ("stac_version", "stac_extensions")


def sidecar_faults(path: Path) -> Iterator[tuple[str, Literal["missing", "damaged"]]]:
    """Yield name and fault (``"missing"`` or ``"damaged"``) of each file beside a whole archive that is not as it was.

    A store that has been moved without any of them is no fault. Content is compared, as other versions of the libraries
    write the same content in other bytes.
    """
    tree = open_archive(path)
    tables, item = tables_of(tree, path), sidecar_paths(path)[1]
    if not any(file.exists() for file in (*tables, item)):
        return
    for file, frame in tables.items():
        if not file.exists():
            yield file.name, "missing"
        elif not _same_table(file, frame):
            yield file.name, "damaged"
    if not item.exists():
        yield item.name, "missing"
    elif not _same_item(item, item_content(item_of(tree, path))):
        yield item.name, "damaged"


def _same_table(file: Path, frame: gpd.GeoDataFrame) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        expected = write_geoparquet(frame, Path(folder) / file.name)
        try:
            if file.read_bytes() == expected.read_bytes():
                return True
            found = gpd.read_parquet(file)
        except Exception:  # Arrow, GEOS and the file system have errors of their own for a file that is cut
            return False
        return _same_rows(found, gpd.read_parquet(expected))


def _same_rows(one: gpd.GeoDataFrame, other: gpd.GeoDataFrame) -> bool:
    if list(one.columns) != list(other.columns) or len(one) != len(other) or one.crs != other.crs:
        return False
    values = [frame.drop(columns=frame.geometry.name) for frame in (one, other)]
    shapes = [list(frame.geometry.to_wkb()) for frame in (one, other)]
    return values[0].equals(values[1]) and shapes[0] == shapes[1]


def _same_item(file: Path, expected: str) -> bool:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and _content(found) == _content(json.loads(expected))


def _content(item: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in item.items() if name not in _OF_WRITER}
