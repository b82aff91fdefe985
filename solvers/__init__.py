"""Which choices to take: a knapsack with one choice per group, several budgets and ties.

Read in this order: `problem` (what is asked), `solution` (what is answered), `solve` (the way from one to the other),
then the steps: `presolve` `ties` `relax` `greedy` `ilp` `backends`; `certify` re-checks every answer in exact
arithmetic, `explain` says why there is none, `baselines` are what answers are compared with.
"""
