"""Other people's file formats, read into cases and written from them."""
