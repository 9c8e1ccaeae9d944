"""Objects by key, on a local disk or S3; the only boto3.

In: a URI. Out: a :class:`~pipeline.stores.base.Store` that lists, reads ranges, and creates what is not there yet.
"""
