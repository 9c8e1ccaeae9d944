"""The service's HTTP: its routes and their answers, what stands before and below them. With `iiif` the only fastapi.

In: requests. Out: answers; errors as sentences under the status that they mean.
"""
