"""The error of everything that concerns data."""

from __future__ import annotations


class DataError(RuntimeError):
    """Data that are missing, damaged or not what they should be: the message says what was expected and the way out."""
