"""Keras on TensorFlow, imported with quiet and memory-friendly defaults.

Everything that needs Keras or TensorFlow takes it from here, so the environment is set before the first import.
Importing this module costs seconds: do so inside functions.
"""

from __future__ import annotations

import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# without it, the first of several processes on one GPU takes all its memory
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")

import keras
import tensorflow as tf

from icemap_xr.errors import ModelError

if keras.backend.backend() != "tensorflow":
    raise ModelError(
        f"Keras runs on {keras.backend.backend()!r}; needed is 'tensorflow': "
        "set KERAS_BACKEND=tensorflow before Keras is first imported"
    )

__all__ = ["keras", "tf"]
