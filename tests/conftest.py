"""Settings of all tests: one thread each, so that they stay quick beside other work, and no model hub."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"

import torch

torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)
