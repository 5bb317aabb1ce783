"""From the fields of a config to checked objects."""
