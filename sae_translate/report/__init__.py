"""Figures as pure functions of tables, and one writer of self-contained HTML."""
