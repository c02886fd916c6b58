"""The stages of the unimodal pipeline: read parameters and inputs, call the library, write outputs and records."""
