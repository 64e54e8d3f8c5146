"""Caploom: from images with poor captions to a better vision-language training set, and the proof that it is better."""

from caploom.common.moved_modules import install

__version__ = "0.1.0"

install()
