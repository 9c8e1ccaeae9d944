"""Pictures to files: restored files, LRs, originals made smaller; the only imagecodecs, and with ``decoders`` the only Pillow.

In: a :class:`~pipeline.pictures.picture.Picture`, 8-bit RGB with alpha and metadata apart. Out: the bytes of a file, and back.
A format that a restore writes is added in ``writing``.
"""
