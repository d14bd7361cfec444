"""`topics create` and `catalog import`."""
