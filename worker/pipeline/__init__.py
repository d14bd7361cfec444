"""One batch, from records in hand to what is published and committed, and what keeps it going."""
