"""`orders`: lists decided orders, and places rejected ones again."""
