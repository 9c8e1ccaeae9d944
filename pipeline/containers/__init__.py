"""What is in a picture's file, byte for byte: one walker per container, and what becomes of each part.

In: a file's bytes. Out: its parts, each understood (pixels, EXIF, ICC, XMP), carried verbatim into a restored file of the same
format, or named as lost. ``account`` is the door; a format is added by a walker with ``walk`` and ``put_back``.
"""
