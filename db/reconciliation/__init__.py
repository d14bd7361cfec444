"""Compares ledger, orders and topics, and restores what is missing."""
