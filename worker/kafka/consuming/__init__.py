"""Reads records, and continues past what cannot be unpacked."""
