"""Methods, one file each, and the loop that runs them."""
