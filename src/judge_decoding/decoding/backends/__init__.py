"""The back ends that run the target: eager or compiled."""
