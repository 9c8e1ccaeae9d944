"""What rate_distortion.py is made of: it measures and writes docs/bytes.md."""
