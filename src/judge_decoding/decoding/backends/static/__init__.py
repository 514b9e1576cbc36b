"""The static back end: models compiled ahead of time, caches allocated once, a rollback that costs nothing."""
