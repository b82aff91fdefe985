"""The solver: a multiple-choice knapsack problem with one candidate for each group, several budgets and ties.

Start with `problem`, `solution` and `solve`. `reduction` does what needs no search, `search` is the exact path on the
rest, and `programs` passes an integer program to a backend. `questions` answers further questions about a problem,
`strategies` is the table of ways to solve one, and `certify` checks every answer in exact arithmetic.
"""
