"""Images and planned views -> features, through the frozen backbone, once.

In the data's way: `plan` says what is left to do, `reading` reads ahead,
`line` runs reading, backbone and writing side by side, `reuse` carries over
what an older store knows and `stage` is the whole run.
"""
