"""The tables of the paper: every row's numbers beside ours, what a row needs, and making what is missing."""
