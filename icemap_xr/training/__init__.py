"""Training and evaluation of networks; importing this package imports no TensorFlow, training does.

::

    tiles (HDF5, simulated regions, cubes) --sampling (+ augment)--> batches --fit (losses, schedule)--> best weights
        weights + held-out tiles --evaluate--> scores, reliability, block errors
    recipe: all of it from one YAML file, to a ModelBundle
"""
