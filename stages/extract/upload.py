"""The line's second station, before a GPU: pixels are copied to it, or decoded on it, beside its work."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from stages.extract.batch import ImageBatch
from stages.extract.config import ExtractConfig
from stages.images.gpu_jpeg import decode_batch
from stages.images.preprocess import Preprocess
from stages.images.read import UnreadableImage, decode_image
from stages.models.backbones.backbone import preprocess_for


def uploaded(
    batches: Iterable[ImageBatch], config: ExtractConfig, device: torch.device
) -> Iterator[tuple[ImageBatch, Tensor]]:
    """Yield batches with their pixels (B, S, S, 3) uint8 where the backbone runs.

    On a GPU the next batch gets there while the one before is computed: what is yielded may only be used
    by work that the present stream is given afterwards.
    """
    preprocess = preprocess_for(config.backbone, config.image_size)
    if device.type != "cuda":
        for batch in batches:
            yield batch, on_device(batch, preprocess, device)
        return
    beside = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    for batch in batches:
        with torch.cuda.stream(beside):
            pixels = on_device(batch, preprocess, device)
        present = torch.cuda.current_stream(device)
        present.wait_stream(beside)
        pixels.record_stream(present)
        yield batch, pixels


def on_device(batch: ImageBatch, preprocess: Preprocess, device: torch.device) -> Tensor:
    """Return a batch's pixels on a device; a file that it cannot decode is tried once more by Pillow.

    What Pillow cannot read either is added to the batch's reasons.
    """
    if not batch.spans:
        return batch.pixels.to(device, non_blocking=True)
    size = preprocess.image_size
    pixels = torch.zeros((len(batch.images), size, size, 3), dtype=torch.uint8, device=device)
    if len(batch.pixels):
        pixels.copy_(batch.pixels, non_blocking=True)
    files = {number: batch.jpegs[span] for number, span in batch.spans.items()}
    for number in decode_batch(files, preprocess, pixels):
        image, content = batch.images[number], files[number].numpy().tobytes()
        try:
            picture = decode_image(content, Path(image.place.key), decode_at_least=preprocess.decode_at_least)
            pixels[number] = torch.from_numpy(preprocess(picture)).to(device)
        except UnreadableImage as error:
            batch.reasons[image.row] = error.reason
    return pixels
