"""One thin module per stage of the unimodal pipeline: read parameters and inputs, call the library, write outputs."""
