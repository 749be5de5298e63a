"""One run as a page that stands alone, and what differs between two: from records and the files they name."""
