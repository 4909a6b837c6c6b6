"""Heads trained each on its own must equal those trained together against the same projection."""

import torch
from safetensors.torch import load_file
from training_city import CONFIG, build_city

from stages.train.merge import merge_heads
from stages.train.stage import run


def test_heads_trained_apart_and_merged(tmp_path):
    city = build_city(tmp_path / "city")
    output = city.folder / "localiser"
    run(CONFIG, **city.inputs(), seed=0)
    before = load_file(output / "localiser.safetensors")
    folders = {group: tmp_path / f"head-{group}" for group in (1, 3)}
    results = [
        run(CONFIG, **{**city.inputs(), "output": folder}, base=output, groups=(group,), seed=1)
        for group, folder in folders.items()
    ]
    alone = {group: load_file(folder / "localiser.safetensors") for group, folder in folders.items()}
    merged = merge_heads(output, folders, results)
    after = load_file(output / "localiser.safetensors")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"group.1.prototypes", "group.3.prototypes"}
    for group in folders:
        name = f"group.{group}.prototypes"
        assert torch.equal(after[name], alone[group][name])
    assert (merged.groups, merged.projection) == ((1, 3), "frozen")
    assert merged.samples == sum(result.samples for result in results)
    assert not any(folder.exists() for folder in folders.values())
