"""`explain`: everything that is known of one order."""
