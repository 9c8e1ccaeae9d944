"""An archive for those who use it: from Python, as a PyTorch dataset, listed and behind a service.

In: an archive's URI. Out: entries by key or by their figures, their LRs, and restored pictures at any size.
"""
