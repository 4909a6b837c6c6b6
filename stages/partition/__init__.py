"""The manifest -> classes, groups and the long-tail view plan."""
