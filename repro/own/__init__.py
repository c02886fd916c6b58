"""A data set of one's own: a workspace whose settings follow from its counts (`repro new`), and a look at it."""
