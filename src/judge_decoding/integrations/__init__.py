"""Judge decoding inside other libraries: transformers, vLLM and the lm-evaluation-harness."""
