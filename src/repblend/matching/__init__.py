"""Trajectory matching: the student, blending, losses, soft similarity, the matching gradient, and the outer loop."""
