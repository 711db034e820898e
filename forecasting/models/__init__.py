"""The models, one file each. Only ``lstm`` imports torch."""
