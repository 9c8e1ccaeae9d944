"""What a clean LR's restore misses, as bytes; the only constriction.

In: an image and its restore. Out: a latent that any machine decodes to the same integers, and adds to the restore.
"""
