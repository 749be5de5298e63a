"""Published folders of other programs, read as data and written for them."""
