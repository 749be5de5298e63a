"""Where text and chat data come from, and how they get into our layout."""
