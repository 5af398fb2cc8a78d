"""The demo: model, tasks, adapters, evaluation. `ops/lab/train.py` trains adapters again."""
