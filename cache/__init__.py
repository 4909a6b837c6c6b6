"""The storage: chunked, resumable, self-describing feature stores."""
