"""Families of nasty input, each case a function of the seed and its number: `tests/fuzz/families.py` lists them."""
