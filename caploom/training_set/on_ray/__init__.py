"""Merging on a Ray cluster: the same files, byte for byte, of what one machine should not merge alone."""
