"""Files, resumable jobs, endpoints, and model-written code."""
