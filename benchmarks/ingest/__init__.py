"""What it costs to take images in, checked, against decoding them and nothing else."""
