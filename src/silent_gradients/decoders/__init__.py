"""Likelihoods p(x|z)."""
