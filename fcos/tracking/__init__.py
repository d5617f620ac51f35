"""Copy results from files to MLflow: this package decides no result, and no stage depends on it.

`sync` makes MLflow agree with the files of finished trainings, `live` logs a training while it runs. mlflow takes
seconds to import, so it is imported where it is first used.
"""
