"""MLflow sees what the files say: nothing here decides a result, and no stage depends on it.

`sync` makes MLflow agree with the files of finished trainings, `live` shows a training while it runs. mlflow takes
seconds to import, so it is imported where it is first used.
"""
