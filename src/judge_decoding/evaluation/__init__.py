"""What judge decoding costs in quality and gives in speed, with the uncertainty."""
