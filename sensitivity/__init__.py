"""How much a change of a layer hurts: metrics, calibration, probes and exhaustive runs."""
