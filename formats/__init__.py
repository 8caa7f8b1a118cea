"""The formats of exports and imports.

Each module has NAME, FILE_NAME, CONTENT_TYPE, write, read and fields_of.
"""
