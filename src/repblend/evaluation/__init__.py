"""Image-text retrieval: the metric, the students that are trained to be measured, the two ways to report them."""
