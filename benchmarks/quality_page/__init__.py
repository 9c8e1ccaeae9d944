"""What quality.py is made of: it measures and writes docs/quality.md."""
