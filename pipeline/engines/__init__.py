"""One network on one device; the only importer of iarn, and of torch for it.

In: pixels and sizes, 8 bit. Out: LRs, restored pixels and how close two pictures are; in tiles, and batches on a GPU.
"""
