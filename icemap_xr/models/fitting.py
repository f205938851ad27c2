"""Which model fits a cube: features, units, steps, polarisation and radiometry."""

from __future__ import annotations

from dataclasses import dataclass

import xarray as xr

from icemap_xr import schema
from icemap_xr.types import ModelSpec


@dataclass(frozen=True)
class Fit:
    """Whether a model can map a cube.

    Parameters
    ----------
    faults
        What keeps it from it; none if it can.
    doubts
        What lets one expect a worse map.
    """

    faults: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether the model can map the cube."""
        return not self.faults

    def __str__(self) -> str:
        """Return yes or no, and why."""
        if self.faults:
            return f"no: {'; '.join(self.faults)}"
        return f"yes, but {'; '.join(self.doubts)}" if self.doubts else "yes"


def fit_to(spec: ModelSpec, cube: xr.Dataset) -> Fit:
    """Compare what a model declares with what a cube or model view offers; reads no pixels.

    Parameters
    ----------
    spec
        What the model declares.
    cube
        A native cube or a model view `(year, step, y, x)`.
    """
    faults, doubts = [], []
    absent = [feature.name for feature in spec.features if feature.name not in cube.data_vars]
    if absent:
        faults.append(f"the cube has no {', '.join(absent)}")
    steps = cube.sizes.get(schema.STEP)
    if steps != spec.steps:
        faults.append(f"it needs {spec.steps} steps a year, the cube has {steps}")
    for feature in spec.features:
        if feature.name in absent:
            continue
        attrs = cube[feature.name].attrs
        units = attrs.get("units")
        if units is not None and units != feature.units:
            faults.append(f"{feature.name} is in {units!r}, needed is {feature.units!r}")
        for name, wanted in (("polarisation", feature.polarisation), ("radiometry", feature.radiometry)):
            have = attrs.get(name)
            if None not in (wanted, have) and have != wanted:
                doubts.append(f"{feature.name} has {name} {have}, it was trained on {wanted}")
    return Fit(tuple(faults), tuple(doubts))
