"""What history.csv holds: a row for each training step, and with the last step of a validated epoch its numbers."""

# By column: what a chart calls it. MLflow has each as a metric with the step as its axis.
CURVES = {
    "loss": "total loss",
    "loss_classification": "classification loss (focal)",
    "loss_regression": "regression loss (GIoU)",
    "loss_centerness": "centerness loss (BCE)",
    "lr": "learning rate",
    "images_per_s": "images/s",
    "num_positives": "positive locations in a batch",
    "validation_AP": "AP on the validation images",
    "validation_AP50": "AP50 on the validation images",
}
LOSSES = ("loss", "loss_classification", "loss_regression", "loss_centerness")
COLUMNS = ("step", "epoch", "lr", *LOSSES, "num_positives", "images_per_s")
VALIDATION = ("validation_AP", "validation_AP50")  # columns of trainings that validate
