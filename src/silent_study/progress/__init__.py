"""What is done, what is left, and what nothing needs any more."""
