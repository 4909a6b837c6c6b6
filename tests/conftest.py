"""What holds for the whole suite."""

from __future__ import annotations

import torch

# One thread: the tests' tensors are small, and results must not depend on how busy the machine is.
torch.set_num_threads(1)
