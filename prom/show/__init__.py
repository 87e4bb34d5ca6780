"""Figures, tables, pictures and the explorer."""
