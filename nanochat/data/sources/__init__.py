"""Where text and chat data come from, and how they are put into our layout."""
