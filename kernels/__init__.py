"""Triton kernels, each beside its plain PyTorch reference; knows nothing of the model that uses them."""
