"""Measurements of the product; README.md says which answers what."""
