"""Caploom: from images with poor captions to a better vision-language training set, and the proof that it is better."""

__version__ = "0.1.0"
