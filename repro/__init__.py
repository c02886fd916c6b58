"""Operations: run the pipeline, regenerate the report, verify the results. Never imports torch."""
