"""What one would write instead of `pipeline extract`: timm, a DataLoader and np.save. A peer, not part of it.

python benchmarks/plain_extract.py LIST WEIGHTS OUTPUT    # a path per line; a state dict of timm; a .npy
"""

import os
import sys
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config
from torch.utils.data import DataLoader, Dataset


class Photos(Dataset):
    def __init__(self, paths, transform):
        self.paths, self.transform = paths, transform

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, number):
        return self.transform(Image.open(self.paths[number]).convert("RGB"))


def main():
    names, weights, output = map(Path, sys.argv[1:])
    model = timm.create_model("tf_efficientnet_lite0", num_classes=0, checkpoint_path=weights).eval()
    transform = create_transform(**resolve_model_data_config(model), is_training=False)
    cores = len(os.sched_getaffinity(0))
    workers = cores if cores > 1 else 0
    torch.set_num_threads(cores)
    photos = Photos(names.read_text().splitlines(), transform)
    with torch.inference_mode():
        parts = [model(batch) for batch in DataLoader(photos, batch_size=32, num_workers=workers)]
    np.save(output, torch.cat(parts).numpy().astype(np.float16))


if __name__ == "__main__":
    main()
