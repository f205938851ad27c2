"""Train the demonstration model: ``python pipelines/train_demo.py pipelines/train_demo.yaml --output FOLDER``.

Run it again with the same folder to go on after an interruption.
"""

from __future__ import annotations

import argparse
import logging

from icemap_xr.training.recipe import read_recipe, run_recipe

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("config", help="recipe, YAML")
parser.add_argument("--output", required=True, help="folder for weights, log, evaluation and bundle")
arguments = parser.parse_args()
logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
bundle = run_recipe(read_recipe(arguments.config), arguments.output)
print(bundle.folder)
