"""Ways to build a Language: from text, from an activation cache, from a generator."""
