"""The inbox: folders that people and programs drop new images into, and what has become of each file."""
