"""The program: a person's words, one stage call, a table."""
