"""The unimodal pipeline: Universal Feature Compensators (INFER, ICLR 2025), their generation and their validation."""
