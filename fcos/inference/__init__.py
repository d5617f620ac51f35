"""A trained detector on images: detections, drawings, exported files, the demo."""
