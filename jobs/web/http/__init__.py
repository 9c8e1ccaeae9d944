"""The service's HTTP: its routes and their answers. With `iiif` the only fastapi.

In: requests. Out: answers; errors as sentences under the status that they mean.
"""
