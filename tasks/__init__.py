"""What osteoflow does, one room (package) per stage. No prefect, dvc or mlflow below this line."""
