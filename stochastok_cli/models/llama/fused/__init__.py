"""Triton kernels that compute the loss of a `Llama` and its gradients on one Hopper GPU, one file a kernel.

`step` chains them. The modules in `models/llama` and `head_loss` are the definition: tests compare each kernel and the
whole step with them. Only `support`, which tells whether the kernels can run, and `attention_tiles`, which has the
sizes that they take, are imported on every machine.
"""
