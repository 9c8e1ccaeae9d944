"""`iarn serve`: the command, its workers and replicas, restored images on demand, metrics, the gallery's files.

In: archives and requests. Out: LRs, originals, lists, restored images, metrics. What answers HTTP is in `http` and
`iiif`, what stands before them in `front`; there may be several processes of that.
"""
