"""An archive behind a service: what can be looked up in it and given of it, while it grows.

In: an archive's URI. Out: entries by key, lists, LRs and originals, large ones in pieces; what came since, told by listings.
"""
