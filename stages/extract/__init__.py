"""Images and planned views -> features, through the frozen backbone, once.

In the data's way: `plan` says what a run is about, `orders` what is left to
do, `reading` reads ahead, `line` runs reading, backbone and writing side by
side, `reuse` carries over what an older store knows, `stage` is the whole run
and `result` what came out of it.
"""
