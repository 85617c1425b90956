"""Schedules: pure functions of a recipe and an epoch."""
