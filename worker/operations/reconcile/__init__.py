"""`reconcile`: hold topics, ledger and tables against each other, and repair."""
