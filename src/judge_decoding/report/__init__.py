"""How results are shown to people: in a terminal and as a web page."""
