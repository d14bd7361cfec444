"""`explain`: everything about one order."""
