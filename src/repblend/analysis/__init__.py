"""Measures of modality collapse (`paper/METHOD.md`, section 11)."""
