"""Judges: how well pictures match their prompts. One file per judge."""
