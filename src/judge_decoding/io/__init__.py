"""Files, jobs that resume, endpoints, and code that a model wrote."""
