"""Files beside an archive that are cut, changed or gone are found."""

from __future__ import annotations

import shlex

import geopandas as gpd

from icemap_xr.archive import archive
from icemap_xr.outlines import outlines
from icemap_xr.sidecars import sidecar_paths
from icemap_xr.testing.archives import maps
from icemap_xr.verify import find_faults, repair_commands, verify


def test_verify_finds_what_is_wrong_beside_an_archive(tmp_path, icemap):
    ds = maps([2019, 2020])
    path = archive(ds, tmp_path / "a.zarr", outlines=outlines(ds))
    table, item = sidecar_paths(path)
    assert verify(path) == []

    def is_found(file, what):
        assert verify(path) == [f"../{file.name}: is {what}"]
        told = icemap("verify", path)
        assert told.code == 1
        (command,) = repair_commands(path, find_faults(path))
        assert command in told.err.replace("\n", "")
        assert icemap("verify", path, "--repair").code == 1
        exec(shlex.split(command)[2])  # what the user is told to run
        assert verify(path) == []

    table.write_bytes(table.read_bytes()[:-20])
    is_found(table, "damaged")
    gpd.read_parquet(table).assign(area_km2=1.0).to_parquet(table)  # readable, and wrong
    is_found(table, "damaged")
    item.write_text(item.read_text()[:-20])
    is_found(item, "damaged")
    item.write_text(item.read_text().replace("2019", "2018"))
    is_found(item, "damaged")
    table.unlink()
    is_found(table, "missing")
    # other bytes of the same content are no fault, and neither is a store on its own
    gpd.read_parquet(table).to_parquet(table, compression="gzip")
    assert verify(path) == []
    for file in (table, item):
        file.unlink()
    assert verify(path) == []
