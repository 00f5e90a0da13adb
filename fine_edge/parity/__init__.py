"""Does an exported graph still find what the PyTorch model finds?"""
