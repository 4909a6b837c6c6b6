"""The commands a user types: parse arguments, call one stage, print a table."""
