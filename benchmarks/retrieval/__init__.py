"""Ranks of image-text retrieval: Caploom, clip-benchmark, and what a dense matrix costs."""
