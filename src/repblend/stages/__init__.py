"""One thin module per DVC stage: check the arguments, build what the library needs, run it, write a record."""
