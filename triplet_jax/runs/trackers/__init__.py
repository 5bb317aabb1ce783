"""Trackers, which show what a run writes down elsewhere: TensorBoard, MLflow, W&B, trackio."""
