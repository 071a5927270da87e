"""The reproduction."""
