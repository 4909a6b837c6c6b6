"""Features and classes -> a localiser: the second, fast stage of the method.

In the data's way: `holdout` sets images aside for validation, `residency`
decides where the others wait, `reading` and `source` bring them there,
`initial` gives the first weights, `schedule` and `samplers` decide what a
step reads, `parts` what is in memory meanwhile, `feed` brings both together,
`loop` takes the steps with the `optimiser`, `validation` looks at the result,
`checkpoint` keeps it safe, `ranks` lets several processes train together,
`passes` is a run from its files and `stage` the whole.
"""
