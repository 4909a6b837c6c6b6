"""Checks: status, verify, doctor."""
