"""Float types that models are loaded in, by their names in torch. Imports no torch."""

FLOAT32 = "float32"
FLOATS = (FLOAT32, "bfloat16", "float16")
