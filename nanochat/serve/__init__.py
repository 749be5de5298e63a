"""The server: HTTP APIs in OpenAI's form and in upstream's, and a page, over engines that batch requests."""
