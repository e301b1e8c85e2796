"""Latents to text: label methods side by side, predicates, and their scores on documents no method saw."""
