"""The kind ``keypoints``: peaks of heatmaps found in the graph, judged by the heatmaps and by margins."""
