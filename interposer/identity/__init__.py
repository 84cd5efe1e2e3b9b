"""Who a token speaks for: JWT -> `Identity`, held to a `Trust`, with the issuer's keys and the time passed in.

`trust` is the contract and imports nothing heavy; `verify.verify` is the way in, `keys.read_keys` makes its keys, and
`refusals` lists every reason to refuse. Nothing here reads a clock, a file or the network, and nothing is remembered.
"""
