"""A sweep: its plan, the engines that carry out its runs, and the report on what they found."""
