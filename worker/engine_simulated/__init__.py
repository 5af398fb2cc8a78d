"""An engine without a model. It outputs known texts at a set pace."""
