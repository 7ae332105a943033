"""What turns texts into vectors: one file an implementation."""
