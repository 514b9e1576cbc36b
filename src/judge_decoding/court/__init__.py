"""TokenCourt: labelled answers, from which a judge learns."""
