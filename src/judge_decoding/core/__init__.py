"""Types that all packages share. They import nothing but errors."""
