"""Merging on a Ray cluster: the same files, byte for byte, for sets that are too large for one machine."""
