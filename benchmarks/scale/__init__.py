"""What grows with the number of shards: the catalog, the listings, the ledger's questions, Dagster's own records."""
