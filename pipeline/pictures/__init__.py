"""Files of pictures: decoding with one policy, restored files, LRs, originals made smaller; the only Pillow and imagecodecs.

In: a file's bytes. Out: a :class:`~pipeline.pictures.picture.Picture`, 8-bit RGB with alpha and metadata apart, and back.
A format is added in ``decoding`` (what is read) and ``writing`` (what a restore writes).
"""
