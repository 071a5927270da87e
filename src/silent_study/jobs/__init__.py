"""The job of one pack."""
