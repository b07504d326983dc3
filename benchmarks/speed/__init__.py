"""How fast presence is, against the limit of what it stands on, and against its peers."""
