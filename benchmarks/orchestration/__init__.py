"""What Dagster costs around the library: a headless run's captions, and the same calls in one plain process."""
