"""`pipeline serve`: locate photos over HTTP, with a page for people."""
