"""Rows in bulk: COPY, references that are known to hold, whole catalogues."""
