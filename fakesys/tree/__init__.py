"""An in-memory kernfs: declared rows become directories, files and links. Knows no model."""
