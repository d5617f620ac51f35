"""What history.csv holds: a row for each training step."""

# By column: what a chart calls it. MLflow has each as a metric with the step as its axis.
CURVES = {
    "loss": "total loss",
    "loss_classification": "classification loss (focal)",
    "loss_regression": "regression loss (GIoU)",
    "loss_centerness": "centerness loss (BCE)",
    "lr": "learning rate",
    "images_per_s": "images/s",
    "num_positives": "positive locations in a batch",
}
LOSSES = ("loss", "loss_classification", "loss_regression", "loss_centerness")
COLUMNS = ("step", "epoch", "lr", *LOSSES, "num_positives", "images_per_s")
