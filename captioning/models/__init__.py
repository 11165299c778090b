"""The captioner's parts in plain PyTorch: encoder, conditioning, attention, decoder, captioner."""
