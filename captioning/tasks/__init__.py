"""What can be trained: image captioning, visual question answering, language models."""
