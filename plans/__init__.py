"""What can be done to a layer, and doing it: formats, schemes, plan files, kernels, quantized modules."""
