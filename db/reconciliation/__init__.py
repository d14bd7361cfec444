"""Ledger, orders and topics held against each other, and what is missing brought back."""
