"""Records a model once, to disk: tokens, activations and SAE latents. Knows nothing of translation."""
