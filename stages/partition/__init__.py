"""Partition: cut the manifest into classes and groups and plan the views of long-tail classes."""
