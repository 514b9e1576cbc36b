"""The embedded reference pair: two tiny models, a judge, and the problems they solve."""
