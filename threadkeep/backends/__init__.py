"""What answers: one file for each kind of model server."""
