"""Project templates: a folder each, with a config.yml and a run.py.

The first line of a config.yml says what the template is for.
"""
