"""`skip`: pass over what nobody can unpack or serve, on record."""
