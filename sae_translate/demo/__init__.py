"""The embedded default: a story generator with known concepts, a small model and its SAE, and the recipe for both."""
