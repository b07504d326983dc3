"""Real servers under real faults, and a checker that reads what everybody logged meanwhile.

`stage` has servers on a store (`grounds`), with a proxy between and tabs in front (`crew`, `tab`),
who do what `plan` says. `harm` are the faults, `play` plays them. All write a `journal`, which
`checker` reads by way of `history`. `mutations` are servers that go without one of their defences.
"""
