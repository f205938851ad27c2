"""A synthetic glacier region with exactly known truth: terrain, scenes, coherence, STAC items.

::

    parameters --> terrain (coarse, whole region) --> truth (block): fraction, class, elevation, outlines
                                                       |
    season (date) --> scatter (block, date) <----------+--> region: arrays, model view --> writer: COGs + STAC
"""

from icemap_xr.simulate.acquisitions import Acquisition
from icemap_xr.simulate.making import region
from icemap_xr.simulate.parameters import Landscape, Sensor, Surface
from icemap_xr.simulate.simulated import SimulatedRegion

__all__ = ["Acquisition", "Landscape", "Sensor", "SimulatedRegion", "Surface", "region"]
