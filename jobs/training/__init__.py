"""Training the network, its recipes and checkpoints, and measuring it.

In: folders, tars or Parquet of photographs. Out: weights, a log and tables of figures. Needs torch, numpy, Pillow and
safetensors alone.
"""
