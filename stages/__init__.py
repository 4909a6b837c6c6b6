"""The stages: each one turns files into files and owns the artifact it writes."""
