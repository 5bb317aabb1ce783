"""A sweep: its plan, how its runs are carried out, and what they found."""
