"""One chunk at a time, in plain numpy: no Dask, no xarray, no TensorFlow."""
