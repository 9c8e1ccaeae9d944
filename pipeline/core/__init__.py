"""What every wing uses: the frozen values that flow, errors, and how work is bounded and counted.

In and out: plain values. Nothing here opens a file of a user's, or knows a library beyond numpy.
"""
