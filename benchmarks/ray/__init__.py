"""Captioning on Ray against captioning in one process: what the cluster costs."""
