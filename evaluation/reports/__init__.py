"""Runs that measure, their figures, tables and reports."""
