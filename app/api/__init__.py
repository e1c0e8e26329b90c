"""The HTTP surface: views, schemas and problem replies."""
