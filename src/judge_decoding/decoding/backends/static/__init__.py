"""The static back end: models compiled ahead of time, KV caches allocated once, rollback at no cost."""
