"""LoRS: matches the whole image encoder and the text head, and learns a low-rank soft similarity."""

from repblend.methods.declaration import Method

METHOD = Method(name="lors", title="LoRS", matched="image-encoder", similarity="low-rank", perturbation="none",
                gradient="constant-memory")
