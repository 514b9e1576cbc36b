"""Local web pages for one person on this machine: who is answered, and how a server is started and ended."""
