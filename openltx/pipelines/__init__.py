"""From a request to a video: ``request`` (the schema), ``generate``, ``residency`` (where a model lives)."""
