"""Data: read a source, prepare and split it, keep it as memory-mapped arrays, hand it out in batches."""
