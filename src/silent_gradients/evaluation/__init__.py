"""Measurements of trained models: bounds, errors, gradient variance, reconstructions and closed-form limits."""
