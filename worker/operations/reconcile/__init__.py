"""`reconcile`: compare topics, ledger and tables, and repair what is missing."""
