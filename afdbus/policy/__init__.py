"""Who may: rules, the set of them that applies to a peer, and the decision with its reason."""
