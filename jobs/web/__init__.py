"""`iarn serve`: the command, its replicas, restored images on demand, metrics, the gallery's files.

In: archives and requests. Out: LRs, originals, lists, restored images, metrics. What speaks HTTP is in `http`, and in `iiif`.
"""
