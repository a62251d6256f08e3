"""How good detections, probabilities and masks are, and which training came out better.

Most modules judge files that were written before; ``robustness`` runs the pipeline itself, ``operating_point`` and the
rules of malignancy fit few numbers on held-out data, ``runs`` reads the logs of trainings. Must not train networks.
"""
