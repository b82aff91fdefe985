"""Which choices to take: a knapsack with one choice per group, several budgets and ties.

Read `problem` (what is asked), `solution` (what is answered) and `solve` (from one to the other). `reduction` decides
what needs no search, `search` is the exact path on what is left, `programs` hands an integer program to a backend.
`questions` holds what else can be asked of a problem, `strategies` the table of ways to an answer. `certify` checks
every answer again in exact arithmetic.
"""
