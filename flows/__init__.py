"""When things run: the only importer of prefect, dvc and mlflow."""
