"""Which choices to take: a knapsack with one choice per group, several budgets and ties.

Read in this order: `problem` (what is asked), `solution` (what is answered), `solve` (the way from one to the other),
then its steps: `core` `lagrangian` `dual` `repair` `labels` `ilp` `exact`, which stand on `presolve` `ties` `relax`
`backends`. What more can be asked: `frontier` `why` `worth` `kbest` `lexicographic` `chance` `split`. `certify`
re-checks every answer in exact arithmetic, `explain` says why there is none, `baselines` and `greedy` are what answers
are compared with, and `strategies` is the table of all ways to one.
"""
