"""Reading records, past whatever cannot be unpacked."""
