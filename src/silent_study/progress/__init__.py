"""What is done, what is left, what can be removed."""
