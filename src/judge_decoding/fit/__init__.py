"""Make a judge head from a target model and prompts."""
