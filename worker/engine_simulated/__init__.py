"""An engine without a model, which paces known texts."""
