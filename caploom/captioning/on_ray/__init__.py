"""Captioning on a Ray cluster: the same captioners, the same ledger, the same failure rows."""
