"""Fakes and small datasets for testing code that uses icemap-xr."""

from icemap_xr.testing.fakes import FakePredictor, small_grid, yearly_dataset

__all__ = ["FakePredictor", "small_grid", "yearly_dataset"]
