"""Which runs the settings ask for, round by round."""
