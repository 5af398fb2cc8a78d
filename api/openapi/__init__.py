"""The OpenAPI document, with the models and examples of each pool."""
