"""Trajectory matching: losses, soft similarity, blending, the matching gradient, and the outer loop that distils."""
