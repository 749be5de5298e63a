"""From text to token ids and back: training, encoding and the chat format."""
