"""What several benchmarks share, and stand-ins."""
