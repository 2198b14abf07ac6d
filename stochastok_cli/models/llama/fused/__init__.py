"""The same loss and gradients as `Llama` and `head_loss`, by kernels made for training on one Hopper GPU.

A file a kernel; `step` chains them. The readable modules of `model` are the definition, and the tests hold each kernel
and the whole step to them. Nothing here is imported before `support.supported` has said that it can run.
"""
