"""Entries as IIIF has them: images by the Image API 3.0, level 2, manifests and collections by the Presentation API 3.0.

In: addresses below /iiif/3/, entries of archives. Out: images of regions, info.json, manifests, collections.
"""
