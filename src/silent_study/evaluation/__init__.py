"""Evaluations of stored runs with torch and numpy alone."""
