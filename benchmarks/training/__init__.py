"""Training CLIP, beside `open_clip_train`: how fast, and whether both learn the same."""
