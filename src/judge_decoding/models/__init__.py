"""What is asked of a causal language model and its tokenizer: ids, texts and prompts."""
