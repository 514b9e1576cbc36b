"""Present results to people: in a terminal, as web pages and as model cards."""
