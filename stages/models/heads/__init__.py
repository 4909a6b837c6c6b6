"""Projection and classification heads (AAMC, LMCC, linear) and their losses."""
