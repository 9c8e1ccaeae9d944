"""What of a source becomes a plan, what is left out of it, and what changed in the source since.

In: a source's URI, and the source shards that a plan has already. Out: source shards; lists of the objects that are in none,
and of those that are no longer as they were planned.
"""
