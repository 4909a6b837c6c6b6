"""Features and classes -> a localiser: the second, fast stage of the method.

In the data's way: `holdout` sets images aside for validation, `source` puts
features into memory, `initial` gives the first weights, `samplers` decides
what a step reads, `loop` takes the steps, `validation` looks at the result
and `stage` is the whole run.
"""
