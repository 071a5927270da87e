#!/bin/sh
# Snakemake runs a copy of this script in the new environment. silent_study/workflow.py sets SILENT_GRADIENTS_SOURCE.
set -eu
cd "$SILENT_GRADIENTS_SOURCE"
python -m pip install --disable-pip-version-check --constraint constraints.txt --editable '.[workflow]'
