"""The columns of history.csv: a row per training step; the last step of a validated epoch has its metrics too."""

# Column -> its title in charts. Each column is also an MLflow metric over the steps.
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
VALIDATION = ("validation_AP", "validation_AP50")  # additional columns of trainings with validation
