"""What the commands show: entries, sessions and contexts on a screen, the chat, and the demo."""
