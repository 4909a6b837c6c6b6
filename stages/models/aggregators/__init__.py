"""Local features to one feature per image: GeM, NetVLAD, SALAD."""
