"""`skip`: skip what nobody can unpack or serve, on record."""
