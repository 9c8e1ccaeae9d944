"""`iarn serve`: archives over HTTP, the gallery, and what stands around them.

In: archives and requests. Out: LRs, originals, lists, restored images, metrics. The only fastapi and uvicorn.
"""
