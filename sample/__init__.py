"""A sample fleet that sends real mail, to be stopped."""
