"""The tests of Haltline."""
