"""A source's bytes to a picture: one policy for formats, depths, colours and frames.

In: bytes of files. Out: pictures, or the reason why there is none. A format is added in ``decoding``, or where Pillow does not
know it in ``unusual``.
"""
