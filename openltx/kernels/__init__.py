"""Fast paths for processors: attention and fused row operations, each beside the plain formula that defines it.

Every function here has one meaning, written in plain torch, and at most one faster way to compute it on a CPU. Which
one runs depends on the tensors alone (device, dtype, whether a gradient is wanted, whether torch is compiling);
accelerators and ``torch.compile`` always get the plain form. ``library.native()`` gives the compiled part, if any.
"""
