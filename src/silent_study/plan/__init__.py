"""Which runs the settings need, round by round."""
