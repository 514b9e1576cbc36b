"""Types shared by all packages. They import only leaf modules."""
