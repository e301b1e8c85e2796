"""Blind dictionary induction between two languages. Never asks what the items are."""
