"""Imports what an extraction needs, for the fork server: a killed process then starts at once."""
