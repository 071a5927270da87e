"""The training of runs with torch and numpy alone."""
