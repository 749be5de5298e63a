"""The MLP around a squared relu: reference, kernels for GPU and CPU."""

from kernels.relu_squared.op import relu_squared_mlp, relu_squared_mlp_reference

__all__ = ["relu_squared_mlp", "relu_squared_mlp_reference"]
