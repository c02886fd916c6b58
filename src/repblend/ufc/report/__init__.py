"""The report of the unimodal pipeline: tables, figures and a page, from records alone."""
