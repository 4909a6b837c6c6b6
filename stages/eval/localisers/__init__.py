"""Ways to locate a query: classification, retrieval, hybrid."""
