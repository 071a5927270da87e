"""Data sets, from raw files to batches."""
