"""Operations: run the pipeline, regenerate the report, verify the results. Never imports torch."""


"""Operations: run the pipeline, regenerate the report, verify the results. Never imports torch."""

QUICKSTART = "quickstart"
"""The profile that runs unless another is asked for; its workspace is the clone's root."""
