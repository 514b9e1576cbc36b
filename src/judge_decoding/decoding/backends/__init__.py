"""Where the target runs: as it is, or compiled."""
