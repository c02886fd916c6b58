"""Datasets: the reader of the BLIP/Karpathy layout, the embedded set, images, augmented views, feature caches."""
